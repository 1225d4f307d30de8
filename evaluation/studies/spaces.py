"""What is tuned of each model of :data:`evaluation.models.MODELS`, and from where to where. Trial 1 is what it has
already: its own settings, or those of the dataset's card.
"""

import inspect
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

from evaluation.baselines.ease import EASE
from evaluation.baselines.item_cf import ItemCF
from evaluation.baselines.neural import RivalConfig
from evaluation.baselines.popularity import Popularity
from evaluation.baselines.wals import WALS
from evaluation.models import DATS, ENCODERS, SEQUENCES, applicable, dat_config

Space = dict[str, FloatDistribution | IntDistribution]

LEARNING: Space = {
    "learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
    "epochs": IntDistribution(1, 20),
    "query_id_dropout": FloatDistribution(0.0, 0.9),
}
TEMPERATURE: Space = {"temperature": FloatDistribution(5.0, 30.0)}
ITEM_DROPOUT: Space = {"item_id_dropout": FloatDistribution(0.0, 0.9)}
TABLES: Space = {"embedding_lr_scale": FloatDistribution(0.3, 10.0, log=True)}
TWO_TOWERS: Space = LEARNING | TEMPERATURE | ITEM_DROPOUT | TABLES
SEQUENCE: Space = {name: LEARNING[name] for name in ("learning_rate", "epochs")} | TEMPERATURE | ITEM_DROPOUT
SPACES: dict[str, Space] = {
    "dat": SEQUENCE,
    "gru4rec": SEQUENCE,
    "gru4rec-fresh": SEQUENCE,
    "sasrec": SEQUENCE,
    "hstu": SEQUENCE,
    "dat-amm": TWO_TOWERS,
    "dat-cal": TWO_TOWERS,
    "dat-gradient": TWO_TOWERS,
    # To the letter: only what the paper leaves open.
    "dat-paper": {name: LEARNING[name] for name in ("learning_rate", "epochs")},
    "two-tower": TWO_TOWERS,
    "wals": {
        "factors": IntDistribution(16, 128, log=True),
        "regularization": FloatDistribution(1e-3, 1.0, log=True),
        "alpha": FloatDistribution(1.0, 40.0, log=True),
        "iterations": IntDistribution(5, 30),
    },
    "fm": LEARNING,
    "youtube-dnn": LEARNING | TEMPERATURE,
    "mind": LEARNING | TEMPERATURE | {"interests": IntDistribution(2, 8)},
    "mvke": LEARNING | TEMPERATURE | {"interests": IntDistribution(2, 8)},
    "popularity": {},
    "popularity-hour": {},
    "ease": {
        "l2": FloatDistribution(10.0, 5_000.0, log=True),
        "decay": FloatDistribution(0.5, 1.0),
        "latest": IntDistribution(10, 200, log=True),
    },
    "item-cf": {
        "recency": FloatDistribution(0.5, 1.0),
        "damping": FloatDistribution(0.2, 1.0),
        "latest": IntDistribution(10, 200, log=True),
    },
}


def defaults(name: str, training: dict[str, Any] | None = None) -> dict[str, Any]:
    """The first trial: a model's settings for what its space varies, where they lie in it.

    Args:
        training: What it starts from, as far as that is its (:func:`evaluation.models.applicable`).
    """
    given = applicable(name, training or {})
    if name in DATS or name in SEQUENCES:
        name_of = name if name in DATS else "dat"
        own = dat_config(name_of, **given).model_dump()
    elif name in ENCODERS:
        own = RivalConfig(**given).model_dump()
    else:
        kind = {"wals": WALS, "item-cf": ItemCF, "ease": EASE}.get(name, Popularity)
        own = {key: value.default for key, value in inspect.signature(kind).parameters.items()}
    return {key: own[key] for key, values in SPACES[name].items() if values.low <= own[key] <= values.high}
