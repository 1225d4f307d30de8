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

HALF_LIVES = (60_000, 3_600_000)
START = 1_700_006_400_000

clicks = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 200)).map(lambda pair: (f"k{pair[0]}", START + pair[1] * 10_000)),
    min_size=1,
    max_size=60,
)


def _history(folder: Path, rows: list[tuple[str, int]], files: int) -> list[str]:
    """The activity after each click, as the night writes it, spread over files by key."""
    ordered = sorted(rows, key=lambda row: row[1])
    paths = []
    for part in range(files):
        mine = [row for row in ordered if int(row[0][1:]) % files == part]
        if not mine:
            continue
        table = pa.table({"key": [row[0] for row in mine], "event_time": [row[1] for row in mine]})
        after = after_each(table, "key", HALF_LIVES)
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
    return len(past), [float(np.exp2(-(last - past.time) / half_life).sum()) for half_life in HALF_LIVES], last


@settings(max_examples=60, deadline=None)
@given(clicks, st.integers(1, 3), st.integers(1, 4))
def test_every_feature_of_every_candidate_is_that_of_strictly_earlier_clicks(rows, files, calls):
    frame = pd.DataFrame(rows, columns=["key", "time"]).sort_values("time", kind="stable")
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
