"""The clicks of a training set as a stream: the same blocks as in memory, in memory that does not grow."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.card import DatasetCard
from tests.tiny import CUT_MS
from tests.training.data import CARD, CONFIG, GRADIENT, MEMORIES, tables
from training.build import list_column
from training.click_stream import ClickStream, TrainingSetError
from training.fit import fit
from training.training_set import Tables, TrainingSet

ORDERED = CARD.model_copy(update={"clicks": CARD.clicks.model_copy(update={"ties": "order"})})
SAMPLED = MEMORIES.model_copy(update={"memory": MEMORIES.memory.model_copy(update={"softmax": "sampled"})})
TOGETHER = CARD.model_copy(update={"clicks": CARD.clicks.model_copy(update={"ties": "moment"})})


def clicks(count: int, moments: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table({
        "query": rng.integers(0, 50, count).astype(np.int32),
        "item": rng.integers(0, 90, count).astype(np.int32),
        "event_time": np.sort(rng.integers(0, moments, count)),
        "negatives": list_column(rng.integers(0, 90, (count, 3)).astype(np.int32)),
    })  # fmt: skip


def write(table: pa.Table, folder: Path, files: int, row_group: int) -> Path:
    for number, rows in enumerate(np.array_split(np.arange(len(table)), files)):
        part = folder / "clicks" / f"file={number:06d}"
        part.mkdir(parents=True)
        pq.write_table(table.take(rows), part / "part.parquet", row_group_size=row_group)
    return folder


def load(made: Tables, folder: Path, card: DatasetCard = CARD) -> TrainingSet:
    """A set of three files of clicks, each of several row groups."""
    write(made.clicks, folder, 3, 70)
    for name in ("queries", "items"):
        (folder / name).mkdir()
        pq.write_table(getattr(made, name), folder / name / "part.parquet")
    return TrainingSet.load(folder, card)


def in_memory(table: pa.Table, ordered: bool, size: int):
    from model.replay import ClickRows

    times = table["event_time"].to_numpy()
    rows = ClickRows(table["query"].to_numpy(), table["item"].to_numpy(), times,
                     np.arange(len(times)) if ordered else times)  # fmt: skip
    return [(block.start, rows[block]) for block in rows.blocks(size)]


@pytest.mark.parametrize("card", [ORDERED, TOGETHER], ids=["by order", "by moment"])
@pytest.mark.parametrize("moments", [3, 40, 5_000])
@pytest.mark.parametrize("size", [1, 17, 256, 2_000])
def test_the_blocks_are_those_of_the_whole_set(card, moments: int, size: int, tmp_path: Path):
    table = clicks(1_000, moments)
    stream = ClickStream(write(table, tmp_path, 3, 70), card, at_once=64)
    assert len(stream) == 1_000
    negatives = np.array(table["negatives"].to_pylist())
    blocks, expected = list(stream.blocks(size)), in_memory(table, card is ORDERED, size)
    assert [block.start for block in blocks] == [start for start, _ in expected]
    for block, (start, rows) in zip(blocks, expected, strict=True):
        for name in ("queries", "items", "times", "moments"):
            np.testing.assert_array_equal(getattr(block.clicks, name), getattr(rows, name))
        np.testing.assert_array_equal(block.negatives, negatives[start : start + len(rows)])


@pytest.mark.parametrize("start", [1, 69, 70, 200, 334, 335, 700, 999])
def test_a_pass_may_begin_where_another_ended(start: int, tmp_path: Path):
    table = clicks(1_000, 5_000)
    stream = ClickStream(write(table, tmp_path, 3, 70), ORDERED, at_once=64)
    blocks = list(stream.blocks(50, start))
    assert blocks[0].start == start and blocks[-1].stop == 1_000
    for name, column in (("queries", "query"), ("items", "item"), ("moments", None)):
        found = np.concatenate([getattr(block.clicks, name) for block in blocks])
        np.testing.assert_array_equal(found, table[column].to_numpy()[start:] if column else np.arange(start, 1_000))


@pytest.mark.trains
@pytest.mark.parametrize("config", [MEMORIES, SAMPLED, CONFIG, GRADIENT], ids=["memories", "sampled", "amm", "paper"])
def test_what_is_trained_from_files_is_to_the_bit_what_is_trained_from_memory(config, tmp_path: Path):
    """Two epochs and what follows them: the state at the cut by both replays, and the share of repeats."""
    made, choices = tables(900, before=150, moments=90), {"epochs": 2, "logq_window": 150}
    config = config.model_copy(update=choices)
    held, streamed = (replace(data, excludes_seen=True) for data in (TrainingSet.of(made, CARD), load(made, tmp_path)))
    assert len(held) == len(streamed) == 750 and held.repeats == streamed.repeats > 0.2 and streamed.width == 4
    one, two = (fit(data, config, cut_ms=CUT_MS) for data in (held, streamed))
    assert [report.loss for report in one.epochs] == [report.loss for report in two.epochs]
    for name, weights in one.towers.weights.items():
        assert weights.tobytes() == two.towers.weights[name].tobytes(), name
    for of, other in (
        (one.queries, two.queries),
        (one.items, two.items),
        *zip(held.at_cut, streamed.at_cut, strict=True),
    ):
        for name, column in of.columns.items():
            assert column.tobytes() == other.columns[name].tobytes(), name
    assert "_held" not in vars(streamed), "the clicks were never held as a whole"


def test_ten_times_the_clicks_take_no_more_memory(tmp_path: Path):
    peaks, arrow = [], pa.default_memory_pool()
    for count in (40_000, 400_000):
        stream = ClickStream(
            write(clicks(count, count), tmp_path / str(count), count // 20_000, 5_000), TOGETHER, 4_096
        )
        tracemalloc.start()
        held, before = 0, arrow.bytes_allocated()
        for _ in stream.blocks(512):
            held = max(held, arrow.bytes_allocated() - before)
        peaks.append(tracemalloc.get_traced_memory()[1] + held)
        tracemalloc.stop()
    # A piece more or less: one is decoded by a thread of its own while another is in use.
    assert peaks[1] < 2 * peaks[0] and peaks[0] < 4 << 20


def test_a_set_without_clicks_or_a_column_is_refused_by_name(tmp_path: Path):
    with pytest.raises(TrainingSetError, match="clicks has no Parquet file"):
        ClickStream(tmp_path, CARD)
    write(clicks(10, 5).drop(["negatives"]), tmp_path, 1, 10)
    with pytest.raises(TrainingSetError, match="part.parquet lacks the column negatives"):
        ClickStream(tmp_path, CARD)
