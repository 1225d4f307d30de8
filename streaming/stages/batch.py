"""What a worker runs: a stage, and what a batch of records comes to in it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from streaming.clicks import Clicks, Rejected
from streaming.kafka.transactions import Message

if TYPE_CHECKING:
    import pyarrow as pa

    from model.bundle import Bundle
    from model.settings.updater import UpdaterConfig
    from streaming.kafka.offsets import Offsets


@dataclass(frozen=True)
class BatchResult:
    """What a batch of records comes to: the messages of its transaction, and the values to take over after it."""

    messages: list[Message]
    new: Any
    """What the stage's ``apply`` takes; None: nothing has changed."""
    clicks: int
    rejected: tuple[str, ...] = ()
    """The kind of each record that is a dead letter."""
    repeated: int = 0
    uncounted: int = 0
    """Events that are no clicks by the card's rule, or that are of before their query was forgotten."""
    read: Clicks | None = None
    arrived: int = 0
    """When the broker took the oldest of these clicks (ms); 0: there are none."""


class Stage(Protocol):
    """One stage: ``source`` is its input topic, ``changelog`` the topic that its state is rebuilt from."""

    name: str
    source: str
    source_id: str
    """Kafka's id of the source topic, from :meth:`open` on."""
    changelog: str
    batch_records: int
    linger_ms: int
    state: Any
    state_schema: "pa.Schema"
    bundle: "Bundle"
    config: "UpdaterConfig"

    @property
    def window(self) -> int:
        """How many records before the place where reading begins have to be known."""

    def open(self) -> None:
        """Get ready, before the first partition is restored."""

    def refresh(self) -> None:
        """Take over what others have published since."""

    def start_offset(self, partition: int) -> int:
        """Where to begin in a partition of the source that has never been read for this bundle."""

    def restore(self, rows: "pa.RecordBatch") -> None:
        """Take over a record of the changelog."""

    def changelog_starts(self, partitions: list[int]) -> "Offsets":
        """Where this bundle begins in partitions of the changelog."""

    def forget(self, partition: int) -> None:
        """Forget what is known of a partition's records: it is read anew."""

    def recall(self, records: list[Any]) -> None:
        """Take notice of records before the place where reading begins."""

    def process(self, records: list[Any]) -> BatchResult:
        """Compute; change nothing."""

    def set_aside(self, rejected: Rejected) -> BatchResult:
        """What one record comes to that cannot be processed."""

    def apply(self, outcome: BatchResult) -> None:
        """Take over a batch that is committed."""

    def tick(self, partitions: set[int]) -> BatchResult | None:
        """What time alone has changed in some partitions, if it is worth telling."""

    def close(self) -> None: ...
