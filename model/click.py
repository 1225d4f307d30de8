"""The click: the one event that the whole system is made of, and the one verdict on what is a click."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_repo.limits import EARLIEST_MS, ID_LENGTH, LATEST_MS, NOT_A_TIME
from model.partitioner import Partitioner, partitions_of

Id = Field(min_length=1, max_length=ID_LENGTH)


class Click(BaseModel):
    """One positive interaction of a query with an item.

    On Kafka it is a JSON object, keyed by ``query_id``. Ids are strings everywhere; ``event_time`` is milliseconds
    since the epoch, UTC. ``context`` travels with the click and is not read by the towers.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    event_id: str = Id
    query_id: str = Id
    item_id: str = Id
    event_time: int = Field(ge=EARLIEST_MS, lt=LATEST_MS)
    event_type: str | None = Field(default=None, max_length=ID_LENGTH)
    """What happened; what it weighs stands in the dataset card."""
    value: float | None = None
    """How much: a rating, a price, seconds watched."""
    context: dict[str, str | int | float | None] | None = None


class Forget(BaseModel):
    """A record of ``clicks`` that is no click: from here on the query is a new visitor.

    It is keyed as the query's clicks are, so it stands among them, and every reader meets it in their order.
    ``forget_before``: ms; clicks with an earlier time do not count either, however late they arrive.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    query_id: str = Id
    forget_before: int = Field(ge=EARLIEST_MS, lt=LATEST_MS)


class InvalidClick(NamedTuple):
    """Why a record is not a click: in a word, for counting, and in a sentence."""

    kind: Literal["json", "field", "clock", "key", "partition"]
    reason: str


class Record(NamedTuple):
    """What of a record the verdict depends on."""

    key: bytes | None
    value: bytes | None
    partition: int
    timestamp_ms: int


@dataclass(frozen=True)
class ClickValidator:
    """The verdict on a record of the click topic. The stream and the lake both use it, so that they count the same.

    The verdict depends on the record and these settings alone: whoever reads the record, whenever, gets the same one.

    Args:
        partitions: How many partitions the topic has.
        clock_skew_ms: How far ahead of its record's timestamp a click's time may be.
        partitioner: What assigns the producers' keys to partitions.
    """

    partitions: int
    clock_skew_ms: int
    partitioner: Partitioner = "murmur2"

    def __call__(self, records: Iterable[Record]) -> list[Click | Forget | InvalidClick]:
        """For each record the click that it holds, or that its query is forgotten, or why it holds neither.

        A record must be keyed by its query and lie in that key's partition: otherwise one query's clicks reach two
        workers, and its vector has two writers.
        """
        verdicts: list[Click | Forget | InvalidClick] = []
        valid: list[tuple[int, str, int]] = []
        for place, (key, value, partition, timestamp_ms) in enumerate(records):
            verdict = self._content(key, value, timestamp_ms)
            verdicts.append(verdict)
            if not isinstance(verdict, InvalidClick):
                valid.append((place, verdict.query_id, partition))
        homes = partitions_of([query for _, query, _ in valid], self.partitions, self.partitioner).tolist()
        for (place, _, partition), home in zip(valid, homes, strict=True):
            if partition != home:
                verdicts[place] = InvalidClick(
                    "partition",
                    f"partition: the key belongs in partition {home} by {self.partitioner}, the setting "
                    "updater.partitioner; set the producer's partitioner to the same",
                )
        return verdicts

    def _content(self, key: bytes | None, value: bytes | None, timestamp_ms: int) -> Click | Forget | InvalidClick:
        read: Click | Forget
        try:
            read = Click.model_validate_json(value or b"")
        except ValidationError as error:
            try:
                read = Forget.model_validate_json(value or b"")
            except ValidationError as other:
                return _invalid(other if b'"forget_before"' in (value or b"") and _is_object(other) else error, value)
        time = read.event_time if isinstance(read, Click) else read.forget_before
        ahead = time - timestamp_ms
        if ahead > self.clock_skew_ms and timestamp_ms > 0:  # very old formats have no timestamp
            name = "event_time" if isinstance(read, Click) else "forget_before"
            return InvalidClick("clock", f"{name}: {ahead} ms ahead of the broker's clock")
        if key != read.query_id.encode():
            return InvalidClick("key", "key: the record is not keyed by its query_id")
        return read


_TIMES = {"event_time", "forget_before"}


def _is_object(error: ValidationError) -> bool:
    return all(one["loc"] for one in error.errors(include_input=False, include_url=False))


def _invalid(error: ValidationError, value: bytes | None) -> InvalidClick:
    first = error.errors(include_input=False, include_url=False)[0]
    if not value:
        return InvalidClick("json", "not JSON: the record has no value")
    if first["type"] == "json_invalid":
        return InvalidClick("json", f"not JSON: {first['msg']}")
    wrong_time = first["type"] != "missing" and first["loc"] and first["loc"][0] in _TIMES
    what = NOT_A_TIME if wrong_time else first["msg"]
    return InvalidClick("field", f"{'.'.join(str(part) for part in first['loc']) or 'click'}: {what}")
