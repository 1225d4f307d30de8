"""The closed form's weight follows the log: chosen on newest clicks that a first model has not seen, by the moment."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from evaluation.closed_form_choice import choose, is_open, taken_over, with_choice
from evaluation.held_out import hold_out
from evaluation.models import DATRetriever
from evaluation.splits import make_split
from evaluation.test_clicks import make_test
from model.settings.model import AMM, ClosedFormConfig
from model.state import EntityState
from tests.training.data import CARD, ITEMS, MEMORIES, log, profiles, table, training_set
from training.build import build_tables, lay_out
from training.training_set import TrainingSet

OPEN = MEMORIES.model_copy(update={"epochs": 1, "closed_form": ClosedFormConfig(l2=10.0, rank=60)})
POSITIONS = CARD.model_copy(update={"clicks": CARD.clicks.model_copy(update={"time_unit": "position"})})


def in_pairs(count: int = 1_200, queries: int = 150, seed: int = 0) -> pa.Table:
    """Clicks in order of time: whoever clicks an item clicks its neighbour next; which pairs, is by chance."""
    rng = np.random.default_rng(seed)
    query = np.repeat(rng.integers(0, queries, count // 2), 2)
    first = rng.integers(0, ITEMS // 2, count // 2) * 2
    item = np.stack([first, first + 1], 1).ravel()
    return table(query, item, 1_700_000_000_000 - 60_000 * np.arange(count)[::-1])


@pytest.mark.trains
def test_a_log_of_pairs_gets_a_weight_and_a_log_of_chance_none(tmp_path):
    data = training_set(window=in_pairs(), queries=150)
    choice = choose(data, OPEN, checkpoint_file=tmp_path / "held-out.pt")
    assert choice.weight >= 10 and "held out" in choice.why and "% sure)" in choice.why
    assert choice == choose(data, OPEN, checkpoint_file=tmp_path / "held-out.pt"), "the same from its checkpoint"
    noise = training_set(1_200, queries=150, strength=0.0)
    assert choose(noise, OPEN).weight == 0
    model = DATRetriever(OPEN)
    model.fit(data, int(data.clicks.times[-1]) + 1)
    assert model.trained.config.closed_form.weight == choice.weight and model.choice == choice


@pytest.mark.trains
def test_clicks_of_the_test_change_no_choice():
    clicks = in_pairs(2_400)  # some 40 hours: a day, and what comes before it
    splits = [make_split(each, profiles(150), CARD, "live") for each in (clicks, _other_last_day(clicks))]
    one, two = (split.data for split in splits)
    assert not np.array_equal(splits[0].test.clicks.items, splits[1].test.clicks.items)
    assert choose(one, OPEN) == choose(two, OPEN)


def _other_last_day(clicks: pa.Table) -> pa.Table:
    from model.windows import latest, window

    cut = window(CARD, latest(CARD, int(clicks["event_time"][-1].as_py())), 1).cut
    late, items = clicks["event_time"].to_numpy() >= cut, clicks["item_id"].to_numpy(zero_copy_only=False)
    assert 0 < late.sum() < len(late)
    items = np.where(late, np.roll(items, 7), items)
    return clicks.set_column(clicks.column_names.index("item_id"), "item_id", pa.array(items, pa.string()))


@pytest.mark.parametrize("moments", [None, 40])
def test_what_is_held_out_is_the_newest_tenth_and_the_rest_is_as_if_it_had_never_been(moments):
    window = log(600, moments=moments)
    data = training_set(window=window, before=50)
    kept, test = hold_out(data) or pytest.fail("nothing is held out")
    at = len(kept.clicks)
    assert at + len(test) == 550 and 50 <= len(test) <= 90
    assert kept.clicks.times[-1] < test.clicks.times[0] == test.cut_ms, "no moment is split"
    first, last = window.slice(0, 50 + at), window.slice(50 + at)
    tables = build_tables(first.slice(0, 50), first.slice(50), profiles(), CARD, test.cut_ms, 4, 0)
    alone = TrainingSet.of(tables, CARD)
    assert_same(kept, alone)
    expected = make_test(
        last, profiles(), CARD, *alone.at_cut, data.query_spec, data.item_spec, data.excludes_seen, test.cut_ms
    )
    assert names(test.items, test.clicks.items) == names(expected.items, expected.clicks.items)
    assert names(test.queries, test.clicks.queries) == names(expected.queries, expected.clicks.queries)
    assert (test.items.trained, test.excludes_seen) == (expected.items.trained, expected.excludes_seen)
    place = test.items.rows(expected.items.ids)
    for name in ("since", "clicks", "last_click", "counters"):
        np.testing.assert_allclose(getattr(test.items, name)[place], getattr(expected.items, name), err_msg=name)


def test_of_a_log_of_positions_each_querys_last_click_is_held_out_and_the_rest_laid_out_anew():
    clicks = log(600)
    known = lay_out(clicks).sort_by("event_time")
    tables = build_tables(known.slice(0, 0), known, profiles(), POSITIONS, 1_000_001, 4, 0)
    kept, test = hold_out(TrainingSet.of(tables, POSITIONS)) or pytest.fail("nothing is held out")
    assert len(test) == 24 and len(kept.clicks) == 576 and set(test.clicks.times) == {test.cut_ms}
    last = dict(zip(*(known[f"{side}_id"].to_pylist() for side in ("query", "item")), strict=True))
    asked = zip(names(test.queries, test.clicks.queries), names(test.items, test.clicks.items), strict=True)
    assert dict(asked) == last
    newest = np.zeros(24)
    np.maximum.at(newest, kept.clicks.queries, kept.clicks.times)
    assert newest.min() > 900_000, "no hole before the cut"
    assert (np.diff(kept.clicks.times) >= 0).all() and (kept.items.since < test.cut_ms).sum() >= 55


def test_a_later_night_takes_a_choice_over_while_card_settings_and_size_stay():
    data = training_set(600)
    choice = choose(data.with_clicks(data.clicks[:1], data.negatives[:1]), OPEN)
    assert choice.weight == 0 and "too short" in choice.why
    choice = choice.model_copy(update={"clicks": 450, "weight": 30.0})
    assert taken_over(data, OPEN, choice) == choice and taken_over(data, OPEN, None) is None
    assert taken_over(data, OPEN, choice.model_copy(update={"clicks": 390})) is None, "grown by more than half"
    assert taken_over(data, OPEN.model_copy(update={"epochs": 2}), choice) is None
    other = replace(data, card=CARD.model_copy(update={"history": 7}))
    assert taken_over(other, OPEN, choice) is None


def test_large_windows_get_none_and_say_so(monkeypatch):
    monkeypatch.setattr("evaluation.closed_form_choice.MOST_CLICKS", 500)
    choice = choose(training_set(600), OPEN)
    assert choice.weight == 0 and "600 clicks, and up to 500" in choice.why


def test_a_model_is_made_of_a_number_alone():
    assert is_open(OPEN) and not is_open(AMM) and not is_open(MEMORIES)
    with pytest.raises(ValueError, match="closed_form.weight is 'auto'"):
        _ = OPEN.closed_rank
    assert with_choice(AMM, None).closed_form.weight == 0 and with_choice(MEMORIES, None) == MEMORIES


def names(state: EntityState, rows: np.ndarray) -> list[str]:
    return [state.ids[row] for row in rows.tolist()]


def assert_same(one: TrainingSet, two: TrainingSet) -> None:
    assert one.items.ids == two.items.ids
    assert names(one.queries, one.clicks.queries) == names(two.queries, two.clicks.queries)
    for name in ("items", "times", "moments"):
        np.testing.assert_array_equal(getattr(one.clicks, name), getattr(two.clicks, name), name)
    np.testing.assert_array_equal(one.negatives, two.negatives)
    np.testing.assert_array_equal(one.items.since, two.items.since)
