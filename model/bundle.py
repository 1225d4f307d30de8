"""The model bundle: one immutable directory per trained model.

A bundle is all that the day needs: the weights, what each tower reads, and the state of every query and item at the
cut. Vectors of different bundles are not comparable: every vector that leaves a process carries its bundle's version.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError
from safetensors.numpy import save_file

from feature_repo.event_rule import EventRule
from model.arrays import map_arrays
from model.closed_form_choice import ClosedFormChoice
from model.features import InputSpec
from model.settings.model import DATConfig
from model.state import EntityState
from model.towers import Towers

FORMAT = 1
"""Of what is written. A change that this release's readers cannot bear raises it; they take it and the one before."""


class BundleError(RuntimeError):
    """A bundle is missing, damaged, or not of the kind asked for. The message says which and what to do."""


class Manifest(BaseModel):
    """What a bundle says of itself."""

    format: int = FORMAT
    version: str
    dataset: str
    created: datetime
    window: tuple[datetime, datetime]
    """Event times of the training clicks: from, up to (exclusive). The second is the cut."""
    offsets: dict[int, int]
    """The cut in Kafka: for each partition of ``clicks``, the first offset that the bundle's state does not hold."""
    config: DATConfig
    query: InputSpec
    item: InputSpec
    rule: EventRule = EventRule()
    """Which events of ``clicks`` are clicks: the card's rule, by which the state was counted."""
    services: dict[str, dict[str, str]]
    """Feature service → {feature: type}: exactly what each tower was trained to read."""
    excludes_seen: bool = True
    """Whether answers leave out what the query has clicked: by default they do where the log hardly has repeats."""
    metrics: dict[str, float]
    parts: dict[str, dict[str, float]] = {}
    """The same metrics by part of the test clicks, such as new queries; each with how many ``clicks`` it has."""
    lineage: dict[str, str]
    chosen: dict[str, str] = {}
    """What followed the log or was not the default, by name: the value and why (:mod:`training.chosen`)."""
    closed_form: ClosedFormChoice | None = None
    """What was chosen of the closed form; None: nothing was to be chosen."""

    @property
    def cut_ms(self) -> int:
        return int(self.window[1].timestamp() * 1000)

    @classmethod
    def read(cls, file: Path) -> "Manifest":
        """The manifest in a file.

        Raises:
            BundleError: as :meth:`parse`, or it is missing.
        """
        try:
            text = file.read_text()
        except (OSError, ValueError) as error:
            raise BundleError(f"{file.parent} is not a usable bundle: {_first_line(error)}") from error
        return cls.parse(text, str(file.parent))

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> "Manifest":
        """A manifest of JSON. What a later release of the same format has added is ignored.

        Raises:
            BundleError: it is damaged, or of a format that this release does not read.
        """
        try:
            given = json.loads(text)
            given.setdefault("format", 1)  # the first releases wrote none
            if not FORMAT - 1 <= given["format"] <= FORMAT:
                raise ValueError(
                    f"it has format {given['format']}, and this release reads {max(1, FORMAT - 1)} to {FORMAT}: "
                    "use the release that made it, or put another bundle into service (dat bundles)"
                )
            return _without_unknown(cls, given)
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleError(f"{where} is not a usable bundle: {_first_line(error)}") from error


@dataclass(frozen=True)
class Bundle:
    """A trained model with its state at the cut."""

    manifest: Manifest
    towers: Towers
    queries: EntityState
    items: EntityState

    @property
    def version(self) -> str:
        return self.manifest.version

    def save(self, folder: Path) -> None:
        """Write every file; the manifest comes last, so a directory with a manifest is whole."""
        folder.mkdir(parents=True)
        weights = {name: np.ascontiguousarray(weight) for name, weight in self.towers.weights.items()}
        save_file(weights, folder / "weights.safetensors")
        self.queries.save(folder, "query")
        self.items.save(folder, "item")
        (folder / "manifest.json").write_text(self.manifest.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle; its arrays are mapped.

        Raises:
            BundleError: a file is missing or does not fit the others.
        """
        try:
            manifest = Manifest.read(folder / "manifest.json")
            queries, items = EntityState.load(folder, "query"), EntityState.load(folder, "item")
            weights = map_arrays(folder / "weights.safetensors")
            towers = Towers.of(weights, manifest.query, manifest.item, manifest.config)
            for side, state, tower in (("query", queries, towers.query), ("item", items, towers.item)):
                if tower.ids is None:
                    continue
                state.trained = len(tower.ids) - 1  # ids that came after the window have none
                if state.trained > len(state):
                    raise ValueError(f"{state.trained} id embeddings for {len(state)} ids on the {side} side")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{folder} is not a usable bundle: {_first_line(error)}") from error
        return cls(manifest, towers, queries, items)


def _without_unknown(kind: type[Manifest], given: dict[str, Any]) -> Manifest:
    """Raises:
    ValidationError: what is left is not valid.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        unknown = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
        if not unknown:
            raise
    for *path, name in unknown:
        place: Any = given
        for step in path:
            place = place[step]
        del place[name]
    return kind.model_validate(given)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def now() -> datetime:
    return datetime.now(UTC)
