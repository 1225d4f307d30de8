"""The cuts: what is learnt from comes before what is asked, and tuning never sees a test click."""

import pyarrow as pa
import pytest

from feature_repo.source import SPAN_MS
from tests.training.data import CARD, clicks, profiles
from training.protocols import _by_time, _last_out, _side_by_side, make_trial

HOUR = CARD.model_copy(update={"day": "1h", "window_days": 3})


def events(table):
    return list(zip(*(table[name].to_pylist() for name in ("query_id", "item_id", "event_time")), strict=True))


def test_last_out_asks_for_each_querys_last_click_and_tuning_for_the_one_before():
    log = clicks()
    train, test = _last_out(log)
    assert len(train) + len(test) == len(log) and len(test) == 24
    for query, item, time in events(test):
        assert (query, item, time) == [event for event in events(log) if event[0] == query][-1]
    tuned, tuning = _last_out(train)
    assert not set(events(tuning)) & set(events(test))
    assert {e[0]: e for e in events(train)} == {e[0]: e for e in events(tuning)}
    assert len(tuned) == len(log) - 48


def test_the_window_is_the_cards_days_and_the_test_the_day_after():
    log = clicks()
    train, test = _by_time(log, HOUR, "window")
    cut = log["event_time"][-1].as_py() + 1_000 - 3_600_000
    assert events(test) == [event for event in events(log) if event[2] >= cut]
    assert events(train) == [event for event in events(log) if cut - 3 * 3_600_000 <= event[2] < cut]


def test_by_the_nightly_protocol_examples_know_what_the_last_midnight_did_and_else_all():
    log = clicks()
    trial = make_trial(log, profiles(), HOUR, "nightly")
    cut, time = log["event_time"][-1].as_py() + 1_000 - 3_600_000, trial.window.examples.event_time
    days = (cut - time - 1) // 3_600_000
    assert set(days) == {0, 1, 2}
    assert trial.window.examples.known.tolist() == [int((days > day).sum()) for day in days]
    window = make_trial(log, profiles(), HOUR, "window")
    assert window.window.examples.known.tolist() == list(range(len(days)))
    assert trial.replay.items.tolist() == window.replay.items.tolist() and not trial.live


@pytest.mark.parametrize(("card", "asked"), [(HOUR, 60), (CARD, 600)])
def test_live_asks_for_the_last_tenth_or_the_last_true_day(card, asked):
    """All 600 clicks lie within one day, so a card whose day is a day has them all in its last one."""
    assert len(_by_time(clicks(), card, "live")[1]) == asked


def numbered(log):
    """The same clicks with their position within the query for a time, in that order."""
    positions, time = {}, []
    for name in log["query_id"].to_pylist():
        time.append(positions.setdefault(name, 0))
        positions[name] += 1
    return log.set_column(2, "event_time", pa.array(time, pa.int64())).sort_by("event_time")


@pytest.mark.parametrize("tuning", [False, True])
def test_what_is_held_out_leaves_no_hole_and_all_of_it_is_asked_at_the_cut(tuning):
    """With the last click's place left empty, items would be counted down to next to nothing just before the cut."""
    order = CARD.model_copy(update={"clicks": CARD.clicks.model_copy(update={"time_unit": "position"})})
    trial = make_trial(numbered(clicks()), profiles(), order, "last-out", tuning=tuning)
    time = trial.window.examples.event_time
    tenths = [((time > SPAN_MS * tenth / 10) & (time <= SPAN_MS * (tenth + 1) / 10)).mean() for tenth in range(10)]
    assert min(tenths) > 0.08 and max(tenths) < 0.12
    assert set(trial.replay.times) == {time[-1] + 1}


def test_positions_become_one_common_time_and_keep_each_querys_order():
    log = numbered(clicks(200))
    positions = set(log["query_id"].to_pylist())
    spread = _side_by_side(log)
    assert spread["event_time"].to_pylist() == sorted(spread["event_time"].to_pylist())
    for query in positions:
        before = [item for q, item, _ in events(log) if q == query]
        assert [item for q, item, _ in events(spread) if q == query] == before
    lasts = [max(t for q, _, t in events(spread) if q == query) for query in positions]
    assert min(lasts) > 500_000, "everyone's last click is late, few clicks or many"


def test_a_trial_filters_seen_items_where_few_click_twice_or_where_it_is_told_to():
    log = clicks(400)
    assert not make_trial(log, profiles(), HOUR, "live").filter_seen
    assert make_trial(log, profiles(), HOUR, "live", filter_seen=True).filter_seen
    first = {}
    for event in events(log):
        first.setdefault(event[:2], event)
    once = pa.table(dict(zip(log.column_names, map(list, zip(*first.values(), strict=True)), strict=True)))
    trial = make_trial(once, profiles(), HOUR, "live", limit=10)
    assert trial.filter_seen and trial.live and len(trial.replay) == 10
    assert not make_trial(once, profiles(), HOUR, "live", filter_seen=False).filter_seen
