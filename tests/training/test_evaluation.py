"""Ranks and reports on matrices whose answer is known by eye."""

import numpy as np
import pytest

from tests.training.data import CARD, clicks, profiles
from training.evaluation import MISS, measure, ranks, report, summarise
from training.replay import Activity, make_replay, seen_pairs
from training.window import make_examples

ALL = np.array([4])


@pytest.mark.parametrize(
    ("scores", "target", "rank"),
    [
        ([0.1, 0.9, 0.5, 0.3], 1, 1),
        ([0.1, 0.9, 0.5, 0.3], 0, 4),
        ([0.5, 0.5, 0.5, 0.5], 2, 4),  # a collapsed model ranks every target last
        ([0.9, 0.9, 0.1, 0.1], 0, 2),
        ([0.9, np.nan, 0.1, 0.1], 0, 2),  # NaN does not help the target
        ([np.nan, 0.9, 0.1, 0.1], 0, MISS),
        ([-np.inf, 0.9, 0.1, 0.1], 0, MISS),
    ],
)
def test_ties_and_nonsense_count_against_the_model(scores, target, rank):
    assert ranks(np.array([scores], np.float32), np.array([target]), ALL).tolist() == [rank]


def test_items_seen_or_not_yet_born_are_no_rivals_and_no_targets():
    scores = np.array([[4.0, 3.0, 2.0, 1.0]] * 3)
    hidden = np.array([0, 2]), np.array([0, 2])
    assert ranks(scores, np.array([2, 3, 2]), np.array([4, 3, 4]), hidden).tolist() == [2, MISS, MISS]


def test_summary_by_hand():
    metrics = summarise(np.array([1, 50, 51, 100, 101, MISS]))
    assert (metrics.clicks, metrics.hr50, metrics.hr100) == (6, 2 / 6, 4 / 6)
    assert metrics.mrr10 == pytest.approx(10 * (1 + 1 / 50 + 1 / 51 + 1 / 100 + 1 / 101) / 6)


@pytest.fixture(scope="module")
def replay():
    log = clicks(400)
    made = make_examples(log.slice(0, 60), profiles(), CARD)
    return make_replay(log.slice(60), profiles(), CARD, made.query, made.item, made.query_spec, made.item_spec)


def test_seen_items_are_those_of_the_window_and_of_the_replay_so_far(replay):
    names = [clicks(400)[f"{side}_id"].to_pylist() for side in ("query", "item")]
    rows = slice(100, 140)
    got = {(int(row), replay.item.ids[item]) for row, item in zip(*seen_pairs(replay, rows), strict=True)}
    expected = {
        (row - 100, names[1][k])
        for row in range(100, 140)
        for k in range(60 + row)
        if names[0][k] == names[0][60 + row]
    }
    assert got == expected


def test_activity_during_the_replay_equals_a_count_over_the_whole_log(replay):
    log = clicks(400)
    times, names = log["event_time"].to_numpy(), log["item_id"].to_pylist()
    activity = Activity(replay.item, replay.items, replay.times, CARD.item.half_lives_ms)
    positions = np.arange(len(replay))
    counts, counters, last = activity.before(replay.items, positions)
    for position in range(0, len(replay), 17):
        earlier = [times[k] for k in range(60 + position) if names[k] == names[60 + position]]
        assert counts[position] == len(earlier)
        if earlier:
            assert last[position] == earlier[-1]
            brute = [sum(2.0 ** (-(earlier[-1] - t) / h) for t in earlier) for h in CARD.item.half_lives_ms]
            np.testing.assert_allclose(counters[position], brute, rtol=1e-3)


class Oracle:
    """Puts the clicked item first."""

    live = True

    def __init__(self, replay):
        self.replay = replay

    def score(self, rows):
        return np.eye(len(self.replay.item))[self.replay.items[rows]]


def test_even_an_oracle_misses_an_items_first_click_and_the_parts_add_up(replay):
    found = measure(Oracle(replay), replay, filter_seen=False)
    first = replay.items >= replay.existing
    assert (found[first] == MISS).all() and (found[~first] == 1).all()
    parts = report(found, replay).parts
    assert sum(parts[f"seen {band}"].clicks for band in ("0", "1", "2-4", "5-19", "20+")) == len(replay)
    assert sum(part.clicks for name, part in parts.items() if name.endswith("categories")) == len(replay)
