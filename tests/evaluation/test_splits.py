"""The cuts: what is learnt from comes before what is predicted, and tuning never sees a test click."""

import numpy as np
import pyarrow as pa
import pytest

from evaluation.splits import SplitError, make_split
from evaluation.test_clicks import TestClicks
from tests.evaluation.data import replaced
from tests.training.data import CARD, log, profiles
from training.build import SPAN_MS, lay_out
from training.training_set import TrainingSet

DAY_MS = 86_400_000
DAILY = CARD.model_copy(update={"window_days": 3})
SPARSE = CARD.model_copy(update={"day": "4d"})  # whose live test is the last tenth
ORDER = CARD.model_copy(
    update={"clicks": CARD.clicks.model_copy(update={"time_unit": "position"}), "protocol": "last-out"}
)
Event = tuple[str, str, int]


def events(table: pa.Table) -> list[Event]:
    return list(zip(*(table[name].to_pylist() for name in ("query_id", "item_id", "event_time")), strict=True))


def learnt(data: TrainingSet) -> list[Event]:
    clicks = data.clicks
    names = ([data.queries.ids[row] for row in clicks.queries], [data.items.ids[row] for row in clicks.items])
    return list(zip(*names, clicks.times.tolist(), strict=True))


def asked(test: TestClicks) -> list[Event]:
    clicks = test.clicks
    names = ([test.queries.ids[row] for row in clicks.queries], [test.items.ids[row] for row in clicks.items])
    return list(zip(*names, clicks.times.tolist(), strict=True))


@pytest.fixture
def clicks() -> pa.Table:
    """600 clicks of ten days, at 240 moments."""
    return log(moments=240)


def split_of(table: pa.Table, card, protocol: str, **choices):
    return make_split(table, profiles(), card, protocol, **choices)


def numbered(table: pa.Table) -> pa.Table:
    """The same clicks with their position within the query for a time."""
    positions: dict[str, int] = {}
    times = []
    for name in table["query_id"].to_pylist():
        times.append(positions.setdefault(name, 0))
        positions[name] += 1
    return replaced(table, event_time=np.array(times))


@pytest.mark.parametrize("protocol", ["night", "window"])
def test_the_window_is_the_cards_days_and_the_test_the_day_after(protocol, clicks):
    split = split_of(clicks, DAILY, protocol)
    cut = clicks["event_time"][-1].as_py() // DAY_MS * DAY_MS
    assert split.cut_ms == cut and split.live == (protocol == "night")
    assert asked(split.test) == [event for event in events(clicks) if event[2] >= cut]
    assert learnt(split.data) == [event for event in events(clicks) if cut - 3 * DAY_MS <= event[2] < cut]
    # What came before the window counts, though nothing is learnt from it.
    before = [event for event in events(clicks) if event[2] < cut]
    assert split.test.queries.clicks.sum() == len(before)
    assert split.data.queries.clicks.sum() == len(before) - len(learnt(split.data))


def test_a_longer_window_is_a_setting(clicks):
    longer = split_of(clicks, DAILY, "night", window_days=6)
    assert len(learnt(longer.data)) > 1.5 * len(learnt(split_of(clicks, DAILY, "night").data))


@pytest.mark.parametrize("moments", [None, 12], ids=["times of their own", "times that are shared"])
def test_live_takes_the_last_tenth_of_the_clicks_in_whole_moments(moments):
    split = split_of(log(moments=moments), SPARSE, "live")
    assert split.live and len(split.data.clicks) + len(split.test) == 600
    assert split.data.clicks.times[-1] < split.cut_ms <= split.test.clicks.times[0]
    assert len(split.test) == 60 if moments is None else 60 <= len(split.test) < 120


def test_live_takes_the_last_day_where_a_day_is_a_day(clicks):
    cut = clicks["event_time"][-1].as_py() // DAY_MS * DAY_MS
    assert asked(split_of(clicks, DAILY, "live").test) == [event for event in events(clicks) if event[2] >= cut]


def test_last_out_predicts_each_querys_last_click_and_tuning_the_one_before():
    clicks = log()
    split, tuning = split_of(clicks, CARD, "last-out"), split_of(clicks, CARD, "last-out", tuning=True)
    assert len(learnt(split.data)) + len(split.test) == 600 and len(split.test) == len(tuning.test) == 24
    assert len(learnt(tuning.data)) == 600 - 48 and not split.live
    for query, item, time in asked(split.test):
        mine = [event for event in events(clicks) if event[0] == query]
        assert item == mine[-1][1] and mine[-1] not in learnt(split.data) and time == split.cut_ms
        assert (query, mine[-2][1], tuning.cut_ms) in asked(tuning.test)
        assert mine[-2] in learnt(split.data) and not {mine[-1], mine[-2]} & set(learnt(tuning.data))


def test_published_knows_the_last_click_but_one_as_history_and_learns_from_neither():
    clicks = log()
    split = split_of(clicks, CARD, "published")
    assert split.live and split.test.scored is not None and split.test.scored.tolist() == [False] * 24 + [True] * 24
    for number, (query, item, _) in enumerate(asked(split.test)):
        mine = [event for event in events(clicks) if event[0] == query]
        assert item == mine[-1 if number >= 24 else -2][1]
        assert not {mine[-1], mine[-2]} & set(learnt(split.data))


@pytest.mark.parametrize("protocol", ["night", "window", "live", "last-out", "published"])
def test_tuning_never_sees_a_test_click(protocol, clicks):
    final, tuning = split_of(clicks, DAILY, protocol), split_of(clicks, DAILY, protocol, tuning=True)
    if protocol in ("last-out", "published"):
        scored = final.test.scored if final.test.scored is not None else np.ones(len(final.test), bool)
        tests = {(query, item) for (query, item, _), yes in zip(asked(final.test), scored, strict=True) if yes}
        mine = {query: [event[1] for event in events(clicks) if event[0] == query] for query, _ in tests}
        assert all(mine[query][-1] == item for query, item in tests)
        assert len(learnt(tuning.data)) + len(tuning.test) == 600 - 24
    else:
        assert tuning.test.clicks.times[-1] < final.cut_ms
        assert max(event[2] for event in learnt(tuning.data)) < tuning.cut_ms <= tuning.test.clicks.times[0]


@pytest.mark.parametrize("tuning", [False, True])
def test_of_positions_what_is_left_out_leaves_no_hole_and_is_predicted_at_the_cut(tuning):
    """With the last click's place left empty, items would be counted down to next to nothing just before the cut."""
    split = split_of(numbered(log()), ORDER, "last-out", tuning=tuning)
    time = split.data.clicks.times
    tenths = [((time > SPAN_MS * tenth / 10) & (time <= SPAN_MS * (tenth + 1) / 10)).mean() for tenth in range(10)]
    assert min(tenths) > 0.08 and max(tenths) < 0.12
    assert set(split.test.clicks.times) == {time[-1] + 1} == {split.cut_ms}


def test_positions_become_one_common_time_and_keep_each_querys_order():
    clicks = numbered(log(200))
    spread = lay_out(clicks.sort_by([("event_time", "ascending"), ("event_id", "ascending")]))
    ordered = spread.sort_by("event_time")
    for query in set(clicks["query_id"].to_pylist()):
        before = [item for q, item, _ in events(clicks) if q == query]
        assert [item for q, item, _ in events(ordered) if q == query] == before
    lasts = [max(t for q, _, t in events(spread) if q == query) for query in set(clicks["query_id"].to_pylist())]
    assert min(lasts) > 0.5 * SPAN_MS, "everyone's last click is late, few clicks or many"


def test_what_was_seen_is_left_out_where_few_click_twice_or_where_it_is_told_to():
    clicks = log(400)
    assert not split_of(clicks, SPARSE, "live").test.excludes_seen
    told = split_of(clicks, SPARSE, "live", excludes_seen=True)
    assert told.test.excludes_seen and told.data.excludes_seen
    _, first = np.unique([f"{query} {item}" for query, item, _ in events(clicks)], return_index=True)
    once = clicks.take(np.sort(first))
    split = split_of(once, SPARSE, "live", limit=10)
    assert split.test.excludes_seen and split.live and len(split.test) == 10
    assert not split_of(once, SPARSE, "live", excludes_seen=False).test.excludes_seen


def test_a_log_that_is_too_short_is_refused_with_what_to_do():
    clicks = log(40)
    day = clicks.slice(39)["event_time"][0].as_py() // DAY_MS
    one_day = clicks.filter(clicks["event_time"].to_numpy() // DAY_MS == day)
    with pytest.raises(SplitError, match=r"window leaves no clicks to learn from of the \d+ of 'tiny'; give more"):
        split_of(one_day, CARD, "window")
