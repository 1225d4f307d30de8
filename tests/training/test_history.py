"""What a query clicked just before a click: against a list that is kept one click at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.training.data import CARD, clicks, profiles
from training.history import before_each, in_batch, in_replay, newest, tower_rows
from training.replay import make_replay
from training.window import histories, make_examples

LOGS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40)


def one_at_a_time(log, length: int, kept: int, known=()) -> list[list[int]]:
    """Newest first, −1 where there is none; of each query the latest ``kept`` items are known."""
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


@given(LOGS, st.integers(1, 5))
def test_before_each_click_of_a_window(log, length):
    got = before_each(*columns(log), length, np.arange(len(log)))
    assert got.tolist() == one_at_a_time(log, length, kept=length)


def test_a_click_may_know_only_those_before_the_last_night():
    queries, items = np.array([0, 1, 0, 0, 1]), np.array([3, 4, 5, 6, 7])
    assert before_each(queries, items, 2, np.array([0, 0, 0, 3, 3])).tolist() == [
        [-1, -1],
        [-1, -1],
        [-1, -1],
        [5, 3],
        [4, -1],
    ]


def test_nothing_is_known_of_an_unknown_query():
    assert before_each(np.array([-1, 0, -1, 0]), np.array([3, 4, 5, 6]), 2, np.arange(4)).tolist() == [
        [-1, -1],
        [-1, -1],
        [-1, -1],
        [4, -1],
    ]


@given(LOGS, LOGS, st.integers(1, 6), st.integers(0, 5))
def test_before_each_click_of_a_batch_with_rings_that_hold_less_or_more(known, log, length, kept):
    queries, items = columns(known)
    rings, counts = (
        histories(queries, items, 4, kept) if kept else np.empty((4, 0), np.int32),
        np.bincount(queries, minlength=4),
    )
    batch, clicked = columns(log)
    assert in_batch(batch, clicked, rings, counts, length).tolist() == one_at_a_time(log, length, kept, known)
    whole = [one_at_a_time([(query, 0)], length, kept, known)[0] for query in range(4)]
    assert newest(rings, counts, length).tolist() == whole


def test_in_a_replay_live_and_static():
    log = clicks(700)
    made = make_examples(log.slice(0, 600), profiles(), CARD)
    replay = make_replay(log.slice(600), profiles(), CARD, made.query, made.item, made.query_spec, made.item_spec)
    rows, length = slice(30, 70), 4
    known = list(zip(made.examples.query_rows.tolist(), made.examples.item_rows[:, 0].tolist(), strict=True))
    after = list(zip(replay.queries.tolist(), replay.items.tolist(), strict=True))
    right = one_at_a_time(after, length, CARD.history, known)[rows]
    np.testing.assert_array_equal(in_replay(replay, rows, length, live=True), right)
    static = [one_at_a_time([click], length, CARD.history, known)[0] for click in after[rows]]
    np.testing.assert_array_equal(in_replay(replay, rows, length, live=False), static)


def test_rows_of_the_tower_begin_at_one_and_unseen_items_are_none():
    assert tower_rows(np.array([-1, 0, 4, 5, 6]), known=5).tolist() == [0, 1, 5, 0, 0]
