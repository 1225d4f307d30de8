"""The point-in-time join held against brute force in pandas, on random clicks: no feature knows its own click."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.as_of import AsOf
from spark_jobs.features import after_each
from training.shares import CategoryShares, shares

HALF_LIVES = (60_000, 3_600_000)
SHARES = CategoryShares(half_life_ms=1_800_000, feature="kind", categories=["a", "b"])  # and one column for all others
START = 1_700_006_400_000

clicks = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 2)).map(
        lambda drawn: (f"k{drawn[0]}", START + drawn[1] * 10_000, drawn[2])
    ),
    min_size=1,
    max_size=60,
)


def _table(rows: list[tuple[str, int, int]]) -> pa.Table:
    """Clicks: key, time, column of the item's category."""
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(("key", "event_time", "share_column"), map(list, columns), strict=True)))


def _history(folder: Path, rows: list[tuple[str, int, int]], files: int) -> list[str]:
    """The activity after each click, as the night writes it, spread over files by key."""
    ordered = sorted(rows, key=lambda row: row[1])
    paths = []
    for part in range(files):
        mine = [row for row in ordered if int(row[0][1:]) % files == part]
        if not mine:
            continue
        after = after_each(_table(mine), "key", HALF_LIVES, SHARES)
        stamp = pa.array(after["last_click"].to_numpy() * 1000, pa.timestamp("us", tz="UTC"))
        after = after.append_column("event_timestamp", stamp).append_column("created_timestamp", stamp)
        paths.append(str(folder / f"part-{part}.parquet"))
        pq.write_table(after, paths[-1], row_group_size=7)
    return paths


def _expected(frame: pd.DataFrame, key: str, moment: int) -> tuple[int, list[float], int] | None:
    past = frame[(frame.key == key) & (frame.time < moment)]
    if past.empty:
        return None
    last = int(past.time.max())
    counters = [float(np.exp2(-(last - past.time) / half_life).sum()) for half_life in HALF_LIVES]
    for column in range(SHARES.width):
        of_it = past.time[past.column == column]
        counters.append(float(np.exp2(-(last - of_it) / SHARES.half_life_ms).sum()))
    return len(past), counters, last


@settings(max_examples=60, deadline=None)
@given(clicks, st.integers(1, 3), st.integers(1, 4))
def test_every_feature_of_every_candidate_is_that_of_strictly_earlier_clicks(rows, files, calls):
    frame = pd.DataFrame(rows, columns=["key", "time", "column"]).sort_values("time", kind="stable")
    moments = frame.time.to_numpy()
    # Each click asks for its own key, which must not know of it, and for all the others, which may be new.
    candidates = [[key, "k0", "k1", "k2", "k3", "never"] for key in frame.key]
    with TemporaryDirectory() as folder:
        history = AsOf(_history(Path(folder), rows, files), "key", ["clicks", "counters", "last_click"])
        for part in np.array_split(np.arange(len(frame)), min(calls, len(frame))):
            # A moment that two calls share is asked in the first: as the days of a window do not overlap.
            asked = pa.array([key for row in part for key in candidates[row]], pa.string())
            if part[0] and moments[part[0]] == moments[part[0] - 1]:
                continue
            found = history.before(asked, moments[part] * 1000 - 1)
            got = zip(*(found[name].to_pylist() for name in ("clicks", "counters", "last_click")), strict=True)
            for place, (count, counters, last) in enumerate(got):
                row = part[place // 6]
                expected = _expected(frame, candidates[row][place % 6], moments[row])
                if expected is None:
                    assert count is None and counters is None and last is None
                else:
                    assert (count, last) == (expected[0], expected[2])
                    np.testing.assert_allclose(counters, expected[1], rtol=1e-5)
                    by_category = np.array(expected[1][2:])
                    got_shares = shares(np.array([counters[2:]], np.float32))[0]
                    np.testing.assert_allclose(got_shares, by_category / by_category.sum(), rtol=1e-4, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(clicks, st.integers(0, 201), st.booleans())
def test_a_history_that_goes_on_from_an_earlier_one_is_that_of_all_clicks(rows, moment, by_category):
    """To the last bit, whatever the moment between the two."""
    start, counted = START + moment * 10_000, SHARES if by_category else None
    ordered = sorted(rows, key=lambda row: row[1])
    whole = after_each(_table(ordered), "key", HALF_LIVES, counted, start)
    earlier = after_each(_table(ordered), "key", HALF_LIVES, counted).to_pandas()
    state = earlier[(earlier.last_click < start) & ~(earlier.until < start)].sort_values("last_click")
    assert len(state) == len({key for key, time, _ in rows if time < start})
    carried = pa.table(
        {
            "key": pa.array(state.key, pa.string()),
            "event_time": pa.array(state.last_click, pa.int64()),
            "share_column": pa.array(np.zeros(len(state)), pa.int64()),
            **{name: pa.array(state[name], kind) for name, kind in STATE.items()},
        }
    )
    later = [row for row in ordered if row[1] >= start]
    if later:
        carried = pa.concat_tables([carried, _table(later)], promote_options="default")
    if len(carried):
        assert after_each(carried, "key", HALF_LIVES, counted, start).equals(whole)


STATE = {"clicks": pa.int64(), "counters": pa.list_(pa.float32()), "first": pa.int64()}
