"""The click: the one event that the whole system is made of."""

from pydantic import BaseModel, ConfigDict, Field

EARLIEST_MS = 631_152_000_000  # 1990-01-01: an older "click" is a unit mistake (seconds or microseconds sent as ms)
LATEST_MS = 4_102_444_800_000  # 2100-01-01: likewise

Id = Field(min_length=1, max_length=256)


class Click(BaseModel):
    """One positive interaction of a query with an item.

    On Kafka it is a JSON object, keyed by ``query_id``. Ids are strings everywhere; ``event_time`` is milliseconds
    since the epoch, UTC. ``context`` travels with the click and is not read by the towers.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    event_id: str = Id
    query_id: str = Id
    item_id: str = Id
    event_time: int = Field(ge=EARLIEST_MS, lt=LATEST_MS)
    context: dict[str, str | int | float | None] | None = None
