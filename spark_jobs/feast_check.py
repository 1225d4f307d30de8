"""What the trainer reads, held to Feast: a night stops where the two do not agree.

The trainer computes what changes with clicks by its replay; Feast joins it from a history that Spark's SQL has written,
as of each moment. A sample of the training batches is computed by both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore

from model.replay import NO_TOWERS, Replay
from model.settings.model import ACTIVITY
from spark_jobs.validate import BadNight
from training.training_set import TrainingSet

Array = np.ndarray
SHARE = 0.001
AT_LEAST, AT_MOST = 4, 16  # batches: the join makes a row of every earlier click of each id


@dataclass(frozen=True)
class Sample:
    """What the replay knows of some ids just before some moments: ids [N], moments [N] ms, activity [N]."""

    side: str
    ids: list[str]
    moments: Array
    clicks: Array
    counters: Array
    last_click: Array


def sample(data: TrainingSet, batch_size: int) -> Iterator[Sample]:
    """The queries of some batches before each click's moment, and their candidates as of the batch's start."""
    replay = Replay(data.queries.copy(), data.items.copy(), data.query_spec, data.item_spec, ACTIVITY)
    batches = -(-len(data) // batch_size)
    count = min(max(AT_LEAST, round(SHARE * batches)), AT_MOST, batches)
    chosen = np.linspace(0, len(data) - 1, count).round()  # numbers of clicks, whose batches are compared
    for first, block, negatives in data.blocks(batch_size):
        if np.searchsorted(chosen, first) < np.searchsorted(chosen, first + len(block)):
            observed = replay.observe(block, NO_TOWERS)
            fold = observed.fold
            counters, last_click = fold.counted.before(observed.visible)
            ids = [data.queries.ids[row] for row in block.queries]
            yield Sample(
                "query", ids, block.times, fold.clicks[fold.groups.key] + observed.visible, counters, last_click
            )
            items = np.unique(np.concatenate([block.items, negatives.ravel()]))
            items = items[items >= 0]
            state, start = replay.items, np.full(len(items), block.times[0])
            yield Sample(
                "item", [state.ids[row] for row in items], start, state.clicks[items], state.counters[items],
                state.last_click[items],
            )  # fmt: skip
        replay.count(block)


def check_against_feast(store: FeatureStore, data: TrainingSet, batch_size: int) -> int:
    """Join the sample by Feast's historical retrieval and compare; returns how many rows were compared.

    Raises:
        BadNight: a row differs; the message has it.
    """
    compared = 0
    for part in sample(data, batch_size):
        joined = _retrieve(store, part)
        clicks, last_click = (pc.fill_null(joined[name], 0).to_numpy() for name in ("clicks", "last_click"))
        counters = np.zeros_like(part.counters)
        known = pc.is_valid(joined["counters"]).to_numpy(zero_copy_only=False)
        counters[known] = pc.list_flatten(joined["counters"]).to_numpy().reshape(-1, counters.shape[1])
        wrong = (clicks != part.clicks) | (last_click != part.last_click)
        wrong |= ~np.isclose(counters, part.counters, rtol=1e-4, atol=1e-6).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise BadNight(
                f"the training set and Feast disagree in {int(wrong.sum()):,} of {len(wrong):,} rows, so nothing was "
                f"trained: {part.side} {part.ids[row]} just before {int(part.moments[row])} has clicks "
                f"{part.clicks[row]}, counters {part.counters[row].tolist()}, last_click {part.last_click[row]} in the "
                f"replay; {clicks[row]}, {counters[row].tolist()}, {last_click[row]} in Feast"
            )
        compared += len(wrong)
    return compared


def _retrieve(store: FeatureStore, part: Sample) -> pa.Table:
    """Feast's answer in the sample's order, as of the last microsecond that does not know of each moment."""
    stamps = pd.to_datetime(part.moments * 1000 - 1, unit="us", utc=True)
    entities = pd.DataFrame({"n": np.arange(len(stamps)), f"{part.side}_id": part.ids, "event_timestamp": stamps})
    features = [f"{part.side}_activity:{name}" for name in ("clicks", "counters", "last_click")]
    # Rows that were created after the moment would leak: a retrained past must not know them.
    job = store.get_historical_features(entities, features, filter_by_created_timestamp=True)
    joined = job.to_arrow().sort_by("n").combine_chunks()  # the join does not keep the order
    if len(joined) != len(part.ids):
        raise BadNight(
            f"Feast returned {len(joined)} rows for {len(part.ids)}: {part.side}_activity has duplicate rows"
        )
    return joined
