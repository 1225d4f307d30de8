"""What a query has seen by when, against looking it up click by click."""

import numpy as np
import pytest

from model.replay import NO_TOWERS, Replay
from model.settings.model import ACTIVITY
from tests.training.data import CARD, training_set
from training.seen_mask import SeenMask

LONG, SHORT = 600, 7


@pytest.mark.parametrize("history", [LONG, SHORT])
@pytest.mark.parametrize("excludes_seen", [False, True])
def test_a_query_has_seen_its_positives_of_the_batch_and_what_it_remembers_if_answers_leave_that_out(
    excludes_seen, history
):
    data = training_set(600, card=CARD.model_copy(update={"history": history}), before=100)
    replay = Replay(data.queries.copy(), data.items.copy(), data.query_spec, data.item_spec, ACTIVITY)
    first, block = data.blocks(300)
    clicks = [*zip(data.clicks.queries.tolist(), data.clicks.items.tolist(), strict=True)]
    replay.count(first.clicks)
    batch = slice(90, 130)
    candidates = np.unique(np.r_[block.clicks.items[batch], np.arange(0, 60, 7)])
    mask = np.zeros((40, len(candidates)), bool)
    rows, columns = SeenMask(replay.observe(block.clicks, NO_TOWERS).fold, excludes_seen).of(batch, candidates)
    mask[rows, columns] = True
    start = block.start + batch.start
    for row, number in enumerate(range(start, start + 40)):
        query = clicks[number][0]
        known = {item for key, item in clicks[start : start + 40] if key == query}
        if excludes_seen:
            ring = data.queries.recent_items[query][data.queries.recent_items[query] >= 0].tolist()
            before = ring + [item for key, item in clicks[: block.start] if key == query]
            known |= set(before[-history:]) | {item for key, item in clicks[block.start : start] if key == query}
        np.testing.assert_array_equal(mask[row], np.isin(candidates, list(known)))
    assert 0.05 < mask.mean() < 0.9
    assert (np.diff(rows) >= 0).all() and len(rows) == mask.sum(), "in the order of rows, each cell once"
