"""The training set: point in time, and what the night's Parquet says is what memory says."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.data import CARD, clicks, profiles
from training.examples import ExamplesError, load_training_set
from training.window import make_examples, split_at


@pytest.fixture(scope="module")
def made():
    return make_examples(clicks(), profiles(), CARD, negatives=4)


def test_every_positive_has_s_negatives_that_existed_and_that_its_query_never_clicks(made):
    examples, log = made.examples, clicks()
    assert examples.item_rows.shape == (600, 5)
    clicked = set(zip(log["query_id"].to_pylist(), log["item_id"].to_pylist(), strict=True))
    born = {}
    for row, name in enumerate(log["item_id"].to_pylist()):
        born.setdefault(name, row)
    for row in range(len(examples)):
        query = made.query.ids[examples.query_rows[row]]
        for item in examples.item_rows[row, 1:][examples.item_rows[row, 1:] >= 0]:
            assert (query, made.item.ids[item]) not in clicked
            assert born[made.item.ids[item]] < row
    assert (examples.item_rows[100:] >= 0).all(), "after the first moments no negative is missing"


def test_activity_features_count_only_earlier_clicks(made):
    """The last dense input of both towers is log(1 + clicks so far)."""
    examples, log = made.examples, clicks()
    for side, rows, inputs in (
        ("query", examples.query_rows, examples.query),
        ("item", examples.item_rows[:, 0], examples.item.take(np.arange(0, 3000, 5))),
    ):
        names = log[f"{side}_id"].to_pylist()
        before = [names[:row].count(names[row]) for row in range(len(rows))]
        np.testing.assert_allclose(inputs.dense[:, -1], np.log1p(before), rtol=1e-5)


def test_where_vectors_are_nightly_features_count_only_clicks_before_the_last_night():
    log, card = clicks(), CARD.model_copy(update={"day": "5h"})
    time = log["event_time"].to_numpy()
    cut = int(time[-1]) + 1_000
    midnights = [cut - k * 5 * 3_600_000 for k in (5, 4, 3, 2, 1)]
    known = [sum(t < max(m for m in midnights if m <= at) for t in time) for at in time]
    examples = make_examples(log, profiles(), card, negatives=4, nightly_until=cut).examples
    assert examples.known.tolist() == known and 0 == known[0] < known[-1] < 600
    items = examples.item_rows[:, 0].tolist()
    for row in range(0, 600, 7):
        there = set(items[: known[row]])
        assert examples.asked[row].tolist() == [k if k in there else -1 for k in examples.item_rows[row].tolist()]
    for side, rows, inputs in (
        ("query", examples.query_rows, examples.query),
        ("item", examples.item_rows[:, 0], examples.item.take(np.arange(0, 3000, 5))),
    ):
        names = log[f"{side}_id"].to_pylist()
        before = [names[: known[row]].count(names[row]) for row in range(len(rows))]
        np.testing.assert_allclose(inputs.dense[:, -1], np.log1p(before), rtol=1e-5)


@pytest.mark.parametrize("what", ["permuted", "deleted"])
def test_later_clicks_do_not_change_earlier_features(made, what):
    log = clicks()
    later = log.slice(300)
    order = np.random.default_rng(3).permutation(300)
    later = (
        later.take(order).set_column(2, "event_time", later["event_time"]) if what == "permuted" else later.slice(0, 0)
    )
    other = make_examples(pa.concat_tables([log.slice(0, 300), later]), profiles(), CARD, negatives=4).examples
    np.testing.assert_allclose(other.query.dense[:300, 1:], made.examples.query.dense[:300, 1:])  # 0 is the scaled age
    np.testing.assert_allclose(other.item.dense[:1500:5], made.examples.item.dense[:1500:5])


def test_the_state_at_the_cut_has_every_click_and_the_latest_history(made):
    log = clicks().to_pylist()
    row = made.query.ids.index("q3")
    mine = [click["item_id"] for click in log if click["query_id"] == "q3"]
    assert made.query.clicks[row] == len(mine)
    for k, name in enumerate(mine):
        assert made.item.ids[made.query.history[row, k % CARD.history]] == name
    assert made.query.last_click[row] == max(c["event_time"] for c in log if c["query_id"] == "q3")


def write_night(folder, made, log):
    """What the night's job writes for the same window, in an order that is not that of time."""
    examples, width = made.examples, made.examples.candidates
    keep = (examples.item_rows >= 0).all(axis=1)
    positions = np.flatnonzero(keep)
    catalogue = {side: {row["id"]: row for row in table.to_pylist()} for side, table in profiles().items()}
    rows = []
    times = log["event_time"].to_pylist()
    names = {side: log[f"{side}_id"].to_pylist() for side in ("query", "item")}

    def activity(side, name, position):
        earlier = [times[k] for k in range(position) if names[side][k] == name]
        if not earlier:
            return None, None, None
        last = earlier[-1]
        half_lives = getattr(CARD, side).half_lives_ms
        return len(earlier), [sum(2.0 ** (-(last - t) / h) for t in earlier) for h in half_lives], last

    for position in positions:
        query = names["query"][position]
        candidates = [made.item.ids[k] for k in examples.item_rows[position]]
        clicks_, counters, last = activity("query", query, position)
        row = {"row_id": int(position), "query_id": query, "event_time": times[position], "candidates": candidates}
        row |= {"query__clicks": clicks_, "query__counters": counters, "query__last_click": last}
        row |= {f"query__{name}": catalogue["query"][query][name] for name in CARD.query.tower_features}
        of = [activity("item", name, position) for name in candidates]
        row |= {f"item__{name}": [a[k] for a in of] for k, name in enumerate(("clicks", "counters", "last_click"))}
        row |= {f"item__{name}": [catalogue["item"][i][name] for i in candidates] for name in CARD.item.tower_features}
        rows.append(row)
    assert width == 5
    (folder / "train").mkdir(parents=True)
    order = np.random.default_rng(0).permutation(len(rows))
    half = len(rows) // 2
    for part, chosen in enumerate((order[:half], order[half:])):
        pq.write_table(pa.Table.from_pylist([rows[k] for k in chosen]), folder / "train" / f"part-{part}.parquet")
    for side in ("query", "item"):
        state, ids = getattr(made, side), getattr(made, side).ids
        table = {"id": ids, "clicks": state.clicks, "counters": state.counters.tolist(), "last_click": state.last_click}
        table |= {name: [catalogue[side][i][name] for i in ids] for name in getattr(CARD, side).tower_features}
        if side == "query":
            table["history"] = [
                [i for q, i in zip(names["query"], names["item"], strict=True) if q == name] for name in ids
            ]
        pq.write_table(pa.table(table), folder / f"{side}_state.parquet")
    return keep


def test_the_nights_parquet_gives_the_same_arrays(tmp_path, made):
    log = clicks()
    keep = write_night(tmp_path / "night", made, log)
    loaded = load_training_set(tmp_path / "night", CARD)
    assert loaded.query_spec == made.query_spec and loaded.item_spec == made.item_spec
    expected = made.examples
    flat = np.repeat(keep, 5)
    np.testing.assert_array_equal(loaded.examples.item_rows, expected.item_rows[keep])
    np.testing.assert_array_equal(loaded.examples.query_rows, expected.query_rows[keep])
    np.testing.assert_array_equal(loaded.examples.item.codes, expected.item.codes[flat])
    np.testing.assert_allclose(loaded.examples.item.dense, expected.item.dense[flat], atol=1e-5)
    np.testing.assert_allclose(loaded.examples.query.dense, expected.query.dense[keep], atol=1e-5)
    np.testing.assert_array_equal(loaded.query.history, made.query.history)
    np.testing.assert_array_equal(loaded.item.category, made.item.category)


def test_a_missing_column_is_named(tmp_path, made):
    write_night(tmp_path / "night", made, clicks())
    for part in (tmp_path / "night" / "train").iterdir():
        pq.write_table(pq.read_table(part).drop_columns(["item__clicks"]), part)
    with pytest.raises(ExamplesError, match="clicks"):
        load_training_set(tmp_path / "night", CARD)


def test_split_at_puts_the_cut_itself_behind():
    log = clicks()
    cut = log["event_time"][100].as_py()
    before, after = split_at(log, cut)
    assert max(before["event_time"].to_pylist()) < cut == after["event_time"][0].as_py()
