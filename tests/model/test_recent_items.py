"""What a query clicked just before a click: against a list that is kept one click at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.recent_items import append, before, embedding_rows, from_lists, newest, to_lists
from model.scan import Groups

LOGS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40)


def one_at_a_time(log, length: int, kept: int, known=()) -> list[list[int]]:
    """Newest first, −1 where there is none; of each query the newest ``kept`` items are known."""
    past: dict[int, list[int]] = {}
    for query, item in known:
        past.setdefault(query, []).append(item)
    rows = []
    for query, item in log:
        mine = past.setdefault(query, [])
        rows.append((mine[::-1][:kept] + [-1] * length)[:length])
        mine.append(item)
    return rows


def columns(log):
    return np.array([q for q, _ in log], np.int64), np.array([i for _, i in log], np.int64)


def rings_of(log, kept: int):
    queries, items = columns(log)
    groups = Groups.of(queries, 4)
    none = np.zeros(4, np.int64)
    return append(groups, items, np.full((4, kept), -1, np.int32), none), groups.counts


@given(LOGS, LOGS, st.integers(1, 6), st.integers(0, 5))
def test_before_each_click_of_a_batch_with_rings_that_hold_less_or_more(known, log, length, kept):
    rings, counts = rings_of(known, kept)
    queries, items = columns(log)
    groups = Groups.of(queries, 4)
    assert before(groups, groups.rank, items, rings, counts, length).tolist() == one_at_a_time(log, length, kept, known)
    whole = [one_at_a_time([(query, 0)], length, kept, known)[0] for query in range(4)]
    assert newest(rings, counts, length).tolist() == whole


@given(LOGS, LOGS, st.integers(1, 6), st.integers(0, 5))
def test_a_click_does_not_know_the_others_of_its_moment(known, log, length, kept):
    rings, counts = rings_of(known, kept)
    queries, items = columns(log)
    groups, moments = Groups.of(queries, 4), np.arange(len(log)) // 3
    seen = before(groups, groups.before_moment(moments), items, rings, counts, length)
    for number, click in enumerate(log):
        earlier = known + log[: 3 * moments[number]]
        assert seen[number].tolist() == one_at_a_time([click], length, kept, earlier)[0]


@given(LOGS, LOGS, st.integers(0, 5))
def test_a_ring_after_two_batches_is_that_of_all_clicks(first, second, kept):
    rings, counts = rings_of(first, kept)
    queries, items = columns(second)
    both, total = rings_of(first + second, kept)
    assert append(Groups.of(queries, 4), items, rings, counts).tolist() == both.tolist()
    assert total.sum() == len(first) + len(second)


@given(LOGS, st.integers(0, 5))
def test_rings_become_lists_and_lists_rings(log, kept):
    rings, counts = rings_of(log, kept)
    rows, offsets = to_lists(rings, counts)
    assert from_lists(rows, offsets, counts, kept).tolist() == rings.tolist()
    newest_last = [rows[offsets[q] : offsets[q + 1]].tolist() for q in range(4)]
    assert newest_last == [[i for q, i in log if q == query][-kept:] if kept else [] for query in range(4)]


def test_embedding_rows_begin_at_one_and_unseen_items_are_none():
    assert embedding_rows(np.array([-1, 0, 4, 5, 6]), known=5).tolist() == [0, 1, 5, 0, 0]
