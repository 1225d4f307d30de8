"""Whether a new bundle's stages know what the old one's know: told by what their consumer groups have committed.

Kafka knows it of all processes together, so each can see by itself when the time has come.
"""

from kafka import TopicPartition

from model.bundle import Manifest
from model.settings.updater import UpdaterConfig
from streaming.kafka.changelog import read_range
from streaming.kafka.offsets import Offsets, bundle_starts, committed, ends, group_name


class CatchUp:
    """Looks again at each call of :meth:`done`.

    The query stage has caught up when it has committed what the old one had at the look before; the item stage, when
    there is nothing left of what was on its topic at that moment.
    """

    def __init__(self, config: UpdaterConfig, old: str, new: Manifest):
        self._config, self._old, self._new = config, old, new
        self._goal: Offsets | None = None  # on clicks
        self._ends: Offsets | None = None  # on signals

    def done(self) -> bool:
        """Whether the new bundle's stages know what the old one's knew a moment ago.

        Raises:
            kafka.errors.KafkaError: the cluster did not answer.
        """
        old = {stage: group_name(self._config, stage, self._old) for stage in ("query", "item")}
        new = {stage: group_name(self._config, stage, self._new.version) for stage in ("query", "item")}
        found = committed(self._config, [*old.values(), *new.values()])
        if self._ends is None:
            goal, self._goal = self._goal, found[old["query"]]
            at = found[new["query"]]
            if goal is None or any(max(at.get(p, 0), self._new.offsets.get(p.partition, 0)) < goal[p] for p in goal):
                return False
            if not found[old["item"]]:
                return True  # nobody runs that stage
            self._ends = ends(self._config, [self._config.topics.item_signals])
        at = bundle_starts(self._config, self._new.version) | found[new["item"]]
        return not any(self._left(partition, at.get(partition, 0), end) for partition, end in self._ends.items())

    def _left(self, partition: TopicPartition, start: int, end: int) -> bool:
        """Whether there are records in between, and not only the marks that transactions leave."""
        return start < end and any(read_range(self._config, partition, start, end))
