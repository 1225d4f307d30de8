"""Ranks, corpora and reports, on scores whose answer is known by eye."""

import numpy as np
import pytest

from evaluation.metrics import MISS, Metrics, report
from evaluation.ranks import BLOCK, PART, rank_clicks, ranks
from evaluation.test_clicks import TestClicks
from tests.evaluation.data import replaced, test_clicks
from tests.tiny import CUT_MS
from tests.training.data import CARD, log, profiles, training_set


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
    assert ranks(np.array([scores], np.float32), np.array([target]), np.ones((1, 4), bool)).tolist() == [rank]


def test_items_that_were_seen_or_do_not_exist_yet_are_no_rivals_and_no_targets():
    scores = np.array([[4.0, 3.0, 2.0, 1.0]] * 3)
    exists = np.arange(4) < np.array([4, 3, 4])[:, None]
    seen = np.array([0, 2]), np.array([0, 2])
    assert ranks(scores, np.array([2, 3, 2]), exists, seen).tolist() == [2, MISS, MISS]


def test_metrics_by_hand():
    metrics = Metrics.of(np.array([1, 50, 51, 100, 101, MISS]))
    assert (metrics.clicks, metrics.hr10, metrics.hr50, metrics.hr100) == (6, 1 / 6, 2 / 6, 4 / 6)
    assert metrics.mrr10 == pytest.approx(10 * (1 + 1 / 50 + 1 / 51 + 1 / 100 + 1 / 101) / 6)
    assert metrics.ndcg50 == pytest.approx((1 + 1 / np.log2(51)) / 6)


WINDOW = 60


@pytest.fixture(scope="module", params=[None, 40], ids=["times of their own", "times that are shared"])
def test(request: pytest.FixtureRequest) -> TestClicks:
    """400 clicks, of which the first 60 are the window; whole moments."""
    clicks = log(400, moments=request.param)
    times = clicks["event_time"].to_numpy()
    size = int(np.searchsorted(times, times[WINDOW]))
    return test_clicks(training_set(window=clicks.slice(0, size)), clicks.slice(size), excludes_seen=True)


def whole_log(test: TestClicks) -> list[tuple[str, str, int]]:
    """Query, item and time of all clicks."""
    clicks = next(
        clicks
        for clicks in (log(400), log(400, moments=40))
        if clicks["event_time"][-1].as_py() == test.clicks.times[-1]
    )
    return list(zip(*(clicks[name].to_pylist() for name in ("query_id", "item_id", "event_time")), strict=True))


def test_seen_is_what_the_query_clicked_before_the_moment(test):
    clicks = whole_log(test)
    first = len(clicks) - len(test)
    rows = slice(100, 140)
    got = {(int(row), test.items.ids[item]) for row, item in zip(*test.seen(rows), strict=True)}
    expected = {
        (row - 100, item)
        for row in range(100, 140)
        for query, item, time in clicks
        if query == clicks[first + row][0] and time < clicks[first + row][2]
    }
    assert got == expected


def test_the_reports_bands_count_the_clicks_of_the_query_before_the_moment(test):
    clicks = whole_log(test)
    asked = clicks[len(clicks) - len(test) :]
    expected = [sum(query == other and at < time for other, _, at in clicks) for query, _, time in asked]
    assert test.clicks_before.tolist() == expected


def test_a_query_remembers_as_many_items_as_the_card_says():
    """What an answer leaves out is what the service's ring holds, before and after the cut."""
    card = CARD.model_copy(update={"history": 4})
    clicks = log(400)
    test = test_clicks(training_set(window=clicks.slice(0, 100), card=card), clicks.slice(100), card, True)
    names = list(zip(*(clicks[name].to_pylist() for name in ("query_id", "item_id")), strict=True))
    for row in range(0, 300, 7):
        mine = [item for query, item in names[: 100 + row] if query == names[100 + row][0]]
        _, items = test.seen(slice(row, row + 1))
        assert {test.items.ids[item] for item in items} == set(mine[-4:])


class Oracle:
    """Puts the clicked item first."""

    def __init__(self, test: TestClicks, live: bool):
        self.test, self.live, self.blocks, self.parts = test, live, [], []

    def begin(self, block: slice) -> None:
        self.blocks.append(block)

    def score(self, rows: slice) -> np.ndarray:
        self.parts.append(rows)
        return np.eye(len(self.test.items))[self.test.clicks.items[rows]]

    def end(self, block: slice) -> None:
        assert self.blocks[-1] == block


def test_even_an_oracle_misses_first_clicks_and_repeats_and_the_parts_add_up(test):
    """An item without a click before the moment cannot be answered, be it in the catalogue; nor can what was seen."""
    clicks = whole_log(test)
    found = rank_clicks(Oracle(test, live=True), test)
    for rank, (query, item, time) in zip(found, clicks[len(clicks) - len(test) :], strict=True):
        known = any(what == item and at < time for _, what, at in clicks)
        seen = any((who, what) == (query, item) and at < time for who, what, at in clicks)
        assert rank == (1 if known and not seen else MISS)
    parts = report(found, test).parts
    assert sum(parts[f"seen {band}"].clicks for band in ("0", "1", "2-4", "5-19", "20+")) == len(test)
    assert sum(part.clicks for name, part in parts.items() if name.endswith("categories")) == len(test)


def test_an_item_exists_from_its_creation_or_its_first_click():
    """In hours after the cut: i-new is clicked at 1 and 2, i50 opens at 2, i51 at 9 and is clicked at 3 and 4."""
    card = CARD.model_copy(update={"item": CARD.item.model_copy(update={"created": "released"})})
    opens = {"i50": 2, "i51": 9, "i52": 0}
    items = profiles()["item"]
    released = [CUT_MS + 3_600_000 * opens.get(name, -999) for name in items["id"].to_pylist()]
    catalogues = profiles() | {"item": replaced(items, released=released)}
    data = training_set(50, card=card, catalogues=catalogues, window=replaced(log(50), item_id=["i1"] * 50))
    times = CUT_MS + 3_600_000 * np.arange(1, 6)
    clicks = replaced(log(5), event_time=times, item_id=["i-new", "i-new", "i51", "i51", "i1"])
    test = test_clicks(data, clicks, card, catalogues=catalogues)
    columns = test.items.rows(["i-new", "i50", "i51", "i52", "i1"])
    live = [[0, 0, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert test.exists(slice(0, 5), live=True)[:, columns].astype(int).tolist() == live
    assert test.exists(slice(0, 5), live=False)[:, columns].astype(int).tolist() == [[0, 0, 0, 0, 1]] * 5
    assert data.negatives.max() == 57 - 1 and len(data.items) == 57, "no negative opens after the cut"


def test_a_moment_is_never_split_and_large_ones_are_scored_in_parts():
    times = CUT_MS + np.r_[np.full(BLOCK + 5, 1), np.full(2 * PART + 3, 2), [3]]
    data = training_set(100)
    clicks = replaced(log(len(times)), event_time=times)
    oracle = Oracle(test_clicks(data, clicks), live=True)
    rank_clicks(oracle, oracle.test)
    assert [block.stop for block in oracle.blocks] == [BLOCK + 5, BLOCK + 2 * PART + 8, len(times)]
    assert max(part.stop - part.start for part in oracle.parts) == PART
    assert sum(part.stop - part.start for part in oracle.parts) == len(times)
