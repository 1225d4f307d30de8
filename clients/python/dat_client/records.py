"""What the service answers. Fields that a newer service adds are ignored."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

_Record = TypeVar("_Record")


def read(kind: type[_Record], given: Mapping[str, Any]) -> _Record:
    """A record of the fields that it has."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in given.items() if name in known})


@dataclass(frozen=True)
class Item:
    """One item of an answer. title, category, because: with ``details`` only."""

    item_id: str
    score: float
    title: str | None = None
    category: list[str] | None = None
    because: str | None = None


@dataclass(frozen=True)
class Answer:
    """A top N, best first. answer_id: to be sent back with clicks and impressions · reached: whether the click of
    ``wait_for`` counts (None: none was waited for) · next: with ``paged``, what to ask with for what comes after (None:
    no more). The rest as in the service's API."""

    answer_id: str
    items: list[Item]
    bundle: str
    source: str
    query_id: str | None = None
    fallback: str | None = None
    clicks: int = 0
    update_count: int = 0
    at: int = 0
    vector_age_ms: int | None = None
    arm: str | None = None
    reached: bool | None = None
    next: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Answer":
        return read(cls, {**given, "items": [read(Item, item) for item in given["items"]]})


@dataclass(frozen=True)
class Clicked:
    """A click that was written. token: pass it to ``retrieve`` as ``wait_for``."""

    event_id: str
    event_time: int
    token: str


@dataclass(frozen=True)
class ItemInfo:
    """What is known of an item. held: why answers leave it out."""

    item_id: str
    title: str | None = None
    category: list[str] = field(default_factory=list)
    features: dict[str, Any] = field(default_factory=dict)
    clicks: int = 0
    last_click: int | None = None
    in_index: bool = False
    held: list[str] = field(default_factory=list)
    available: bool = True
    hidden: bool = False
    expires_at: int | None = None
