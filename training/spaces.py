"""What is tuned of each model of :data:`training.models.MODELS`, and from where to where. Trial 1 is what it has
already: its own settings, or those of the dataset's card.
"""

import inspect
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

from training.item_cf import ItemCF
from training.models import DATS, ENCODERS, applicable, dat_config
from training.neural import RivalConfig
from training.popularity import Popularity
from training.wals import WALS

Space = dict[str, FloatDistribution | IntDistribution]

LEARNING: Space = {
    "learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
    "epochs": IntDistribution(1, 20),
    "query_id_dropout": FloatDistribution(0.0, 0.9),
}
TEMPERATURE: Space = {"temperature": FloatDistribution(5.0, 30.0)}
ITEM_DROPOUT: Space = {"item_id_dropout": FloatDistribution(0.0, 0.9)}
ALIGNMENT: Space = {"lambda_ca": FloatDistribution(1e-3, 3.0, log=True)}
TABLES: Space = {"table_rate": FloatDistribution(0.3, 10.0, log=True)}
TWO_TOWERS: Space = LEARNING | TEMPERATURE | ITEM_DROPOUT | TABLES
SPACES: dict[str, Space] = {
    "dat": TWO_TOWERS,
    "dat-cal": TWO_TOWERS | ALIGNMENT,
    "dat-gradient": TWO_TOWERS | ALIGNMENT,
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
    "item-cf": {
        "recency": FloatDistribution(0.5, 1.0),
        "damping": FloatDistribution(0.2, 1.0),
        "latest": IntDistribution(10, 200, log=True),
    },
}


def defaults(name: str, training: dict[str, Any] | None = None) -> dict[str, Any]:
    """The first trial: a model's settings for what its space varies, where they lie in it.

    Args:
        training: What it starts from, as far as that is its (:func:`training.models.applicable`).
    """
    given = applicable(name, training or {})
    if name in DATS:
        own = dat_config(name, **given).model_dump()
    elif name in ENCODERS:
        own = RivalConfig(**given).model_dump()
    else:
        kind = {"wals": WALS, "item-cf": ItemCF}.get(name, Popularity)
        own = {key: value.default for key, value in inspect.signature(kind).parameters.items()}
    return {key: own[key] for key, values in SPACES[name].items() if values.low <= own[key] <= values.high}
