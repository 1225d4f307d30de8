"""The Feast definitions, made from a dataset card.

Views of a side: ``profile`` (the night owns it: Spark writes, changes are loaded), ``activity`` and ``augmented`` (the
stream owns them online; the night writes their history offline). Queries have a fourth, ``history``: their latest
items, of which the tower reads the newest, and which answers leave out. A feature service per tower lists what that
tower reads.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, FeastType, Float32, Int64, String

from feature_repo.card import DatasetCard, Side
from feature_repo.place import Place
from feature_repo.rows_format import FORMAT, TAG

SIDES = ("query", "item")
FILES = "*/*.parquet"  # of a view's folder
_TYPES: dict[str, FeastType] = {
    "category": String,
    "categories": Array(String),
    "number": Float32,
    "time": Int64,  # ms since the epoch, UTC
    "text": String,
}


def view_fields(side_name: str, side: Side) -> dict[str, list[Field]]:
    """The fields of a side's views, by the view's short name."""
    activity = [
        Field(name="clicks", dtype=Int64, description="clicks so far"),
        Field(name="counters", dtype=Array(Float32), description=f"decayed clicks at last_click: {side.half_lives}"),
        Field(name="last_click", dtype=Int64, description="ms since the epoch, UTC"),
    ]
    augmented = [
        Field(name="a", dtype=Array(Float32), description="augmented vector, its averages side by side"),
        Field(name="folded", dtype=Int64, description="clicks folded into a"),
        Field(name="bundle", dtype=String, description="the bundle in whose vector space a lies"),
    ]
    profile = [Field(name=name, dtype=_TYPES[field.kind]) for name, field in side.features.items()]
    profile.append(Field(name="known", dtype=Int64, description="1: the catalogue has this id"))
    views = {"profile": profile, "activity": activity, "augmented": augmented}
    if side_name == "query":
        views["history"] = [Field(name="history", dtype=Array(String), description="latest items, newest last")]
    return views


@dataclass(frozen=True)
class Definitions:
    """Everything that ``feast apply`` registers, by kind."""

    entities: dict[str, Entity]
    sources: dict[str, FileSource | PushSource]
    views: dict[str, FeatureView]
    services: dict[str, FeatureService]

    @property
    def objects(self) -> list:
        return [*self.entities.values(), *self.sources.values(), *self.views.values(), *self.services.values()]


def define(card: DatasetCard, offline: Place) -> Definitions:
    """Definitions for a card, whose batch sources are the Parquet folders ``offline/<view>``.

    Args:
        card: The dataset card.
        offline: Absolute path: a relative one would be resolved against whichever folder Feast runs in.
    """
    entities: dict[str, Entity] = {}
    sources: dict[str, FileSource | PushSource] = {}
    views: dict[str, FeatureView] = {}
    services: dict[str, FeatureService] = {}
    for side_name in SIDES:
        side: Side = getattr(card, side_name)
        key = f"{side_name}_id"
        entity = Entity(name=side_name, join_keys=[key], value_type=ValueType.STRING)
        entities[side_name] = entity
        fields_of = view_fields(side_name, side)
        for short, fields in fields_of.items():
            name = f"{side_name}_{short}"
            batch = FileSource(
                name=f"{name}_history",
                path=f"{offline / name}/{FILES}",
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            )
            source: FileSource | PushSource = batch
            sources[batch.name] = batch
            if short != "profile":
                sources[f"{name}_push"] = source = PushSource(name=f"{name}_push", batch_source=batch)
            views[name] = FeatureView(
                name=name,
                entities=[entity],
                schema=[Field(name=key, dtype=String), *fields],
                source=source,
                ttl=timedelta(0),  # features are as old as they are; the towers read the age where it matters
                online=True,
                tags={"owner": "night" if short == "profile" else "stream"},
            )
        # Activity first of the stream's views: it is written last, so what is read after it holds all that it counts.
        read: list[Any] = [views[f"{side_name}_{short}"] for short in fields_of if short != "profile"]
        if side.tower_features:
            read.insert(0, views[f"{side_name}_profile"][list(side.tower_features)])
        services[f"{side_name}_tower"] = FeatureService(
            name=f"{side_name}_tower",
            features=read,
            description=f"What the {side_name} tower reads",
            tags={TAG: str(FORMAT)},
        )
    return Definitions(entities, sources, views, services)
