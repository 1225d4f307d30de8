"""A click that comes twice counts once, within the window, before and after a restart."""

import numpy as np

from streaming.clicks import Clicks
from streaming.stages.duplicates import DuplicateFilter
from tests.streaming.loop import eventually, folded, produce, running, some_clicks, truth, updater_config
from tests.tiny import tiny_bundle, tiny_store


def clicks(ids: str, start: int = 0, partition: int = 0) -> Clicks:
    """Clicks with one-letter event ids at consecutive offsets."""
    n = len(ids)
    offsets = np.arange(start, start + n)
    ones = np.ones(n, np.float32)
    return Clicks(list(ids), ["q"] * n, ["i"] * n, np.zeros(n, np.int64), np.full(n, partition), offsets, ones)


def test_repeats_within_a_batch_and_across_batches():
    recent = DuplicateFilter(10)
    assert recent.repeats(clicks("aba")).tolist() == [False, False, True]
    recent.add(clicks("aba"))
    assert recent.repeats(clicks("cab", 3)).tolist() == [False, True, True]


def test_a_batch_that_is_done_again_does_not_repeat_itself():
    recent = DuplicateFilter(10)
    for _ in range(2):  # its first transaction failed
        assert recent.repeats(clicks("abb")).tolist() == [False, False, True]


def test_the_window_is_counted_in_records_and_bounds_the_memory():
    recent = DuplicateFilter(3)
    recent.add(clicks("abcdef"))
    assert recent.repeats(clicks("ce", 6)).tolist() == [False, True]  # c is four records back, e is three
    recent.add(clicks("ghij", 6))
    assert len(recent._last[0]) <= 4


def test_partitions_are_apart():
    recent = DuplicateFilter(10)
    recent.add(clicks("a"))
    assert recent.repeats(clicks("a", partition=1)).tolist() == [False]


def test_no_window_no_memory():
    recent = DuplicateFilter(0)
    recent.add(clicks("aa"))
    assert not recent.repeats(clicks("aa")).any()


def test_repeated_clicks_count_once_through_a_restart(kafka, tmp_path):
    bundle, store, events = tiny_bundle("repeats"), tiny_store(tmp_path, queries=9, items=12), some_clicks(90)
    by_query, by_item = truth(events)
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, [*events[:50], *events[20:50]])
        eventually(lambda: sum(folded(kafka, "item", bundle).values()) == 50, "the first part is folded")
    with running(bundle, store, updater_config(kafka), feast_sink=False):
        produce(kafka, [*events[30:], *events[:10]])
        eventually(lambda: sum(folded(kafka, "item", bundle).values()) >= 90, "the second part is folded")
    assert folded(kafka, "query", bundle) == by_query
    assert folded(kafka, "item", bundle) == by_item
