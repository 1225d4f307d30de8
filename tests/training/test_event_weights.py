"""What an event weighs decides what a model learns where events of two types speak for different items."""

import numpy as np
import pyarrow as pa
import pytest

from model.settings.model import DATConfig
from tests.tiny import GENRES
from tests.training.data import CARD, CONFIG, MEMORIES, log, training_set
from training.fit import fit

pytestmark = pytest.mark.trains


def share_that_prefers_what_is_bought(config: DATConfig, events: dict[str, float]) -> float:
    """Queries buy films of one genre, and view as many of another: of how many does the first score higher?"""
    window = log(900)
    bought = np.arange(len(window)) % 2 == 0
    number = np.array([int(name[1:]) for name in window["item_id"].to_pylist()]) // len(GENRES) * len(GENRES)
    place = window.column_names.index("item_id")
    window = window.set_column(place, "item_id", pa.array([f"i{n}" for n in number + bought]))
    window = window.append_column("event_type", pa.array(np.where(bought, "buy", "view")))
    clicks = CARD.clicks.model_copy(update={"event_type": "what", "events": events})
    data = training_set(window=window, card=CARD.model_copy(update={"clicks": clicks}))
    model = fit(data, config, cut_ms=int(data.clicks.times[-1]) + 1)
    scores = model.queries.vectors @ model.items.vectors.T
    genre = np.array([int(name[1:]) % len(GENRES) for name in model.items.ids])
    return float((scores[:, genre == 1].mean(axis=1) > scores[:, genre == 0].mean(axis=1)).mean())


@pytest.mark.parametrize("config", [MEMORIES, CONFIG], ids=["memories", "amm"])
def test_a_model_follows_the_events_that_weigh_more(config: DATConfig):
    assert share_that_prefers_what_is_bought(config, {"buy": 9.0, "view": 1.0}) > 0.9
    assert share_that_prefers_what_is_bought(config, {"buy": 1.0, "view": 9.0}) < 0.1
