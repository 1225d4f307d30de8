"""Clicks after the window are read a piece at a time, in their order."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.train import in_pieces, read_clicks
from tests.tiny import TINY


def write(folder: Path, count: int) -> Path:
    """Two files, whose row groups end elsewhere than pieces do."""
    folder.mkdir()
    clicks = pa.table({"event_id": [f"e{k:03d}" for k in range(count)], "event_time": range(count)})
    for number, start in enumerate((0, 37)):
        part = clicks.slice(start, 37 if number == 0 else None)
        pq.write_table(part, folder / f"part-{number}.parquet", row_group_size=11)
    return folder


def test_pieces_have_one_length_but_the_last_and_together_all_clicks_in_order(tmp_path: Path):
    pieces = list(in_pieces(write(tmp_path / "later", 100), 16))
    assert [len(piece) for piece in pieces] == [16] * 6 + [4]
    assert pa.concat_tables(pieces)["event_time"].to_pylist() == list(range(100))


@pytest.mark.parametrize(("first", "expected"), [(None, 100), (40, 40), (500, 100)])
def test_the_first_clicks_are_read(first, expected, tmp_path: Path):
    card = TINY.model_copy(update={"clicks": TINY.clicks.model_copy(update={"ties": "moment"})})
    assert read_clicks(write(tmp_path / "test", 100), card, first)["event_time"].to_pylist() == list(range(expected))
    assert len(read_clicks(write(tmp_path / "none", 0), card, first)) == 0
