"""The models of a comparison, by name: DAT, its ablations, and its rivals."""

import inspect
from typing import Any

from training.config import PAPER, DATConfig
from training.examples import TrainingSet
from training.live import LiveDAT, StaticDAT
from training.replay import Replay
from training.retriever import Retriever
from training.trainer import fit


class DATRetriever:
    """DAT with a given configuration, as a model of a comparison."""

    def __init__(self, config: DATConfig):
        self.config = config

    def fit(self, window: TrainingSet) -> None:
        self.cut_ms = int(window.examples.event_time[-1])
        self.fitted = fit(window.examples, window.query, window.item, window.query_spec, window.item_spec, self.config)

    def scorer(self, replay: Replay, live: bool) -> StaticDAT | LiveDAT:
        return LiveDAT(self.fitted, replay) if live else StaticDAT(self.fitted, replay, self.cut_ms)


ENCODERS = ("fm", "youtube-dnn", "mind", "mvke")
DETERMINISTIC = ("popularity", "popularity-hour", "item-cf")
"""Models that learn nothing at random: one run says it all."""
DATS: dict[str, DATConfig] = {
    "dat": DATConfig(),
    "dat-cal": DATConfig(lambda_ca=1.0),
    # The paper's training under the default's head, temperature and dropout of item ids.
    "dat-gradient": PAPER.model_copy(
        update={"tower": DATConfig().tower, "temperature": DATConfig().temperature, "item_id_dropout": 0.1}
    ),
    "dat-paper": PAPER,
    "two-tower": DATConfig(amm="off", query_id_dropout=0.1),
}
AS_PUBLISHED = ("dat-gradient", "dat-paper")
"""Models whose settings are part of what they are."""
MODELS = (*DATS, "wals", *ENCODERS, *DETERMINISTIC)


def dat_config(name: str, seed: int = 0, **training: Any) -> DATConfig:
    """The configuration of one of :data:`DATS` with some settings changed; ``tower`` may be a dictionary."""
    return DATConfig.model_validate(over(DATS[name].model_dump(), training) | {"seed": seed})


def over(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with some changed; of a tower, too, only what is named."""
    merged = settings | changes
    if "tower" in settings and "tower" in changes:
        merged["tower"] = settings["tower"] | changes["tower"]
    return merged


def applicable(name: str, training: dict[str, Any]) -> dict[str, Any]:
    """Those of some settings of DAT that a model takes over: what it changes of DAT's defaults stays its own.

    A neural rival's vectors are as long as DAT's, and its logQ correction counts over as many clicks.
    """
    if name in ENCODERS:
        width, window = training.get("tower", {}).get("output_dim"), training.get("frequency_window")
        return {key: value for key, value in (("dim", width), ("frequency_window", window)) if value is not None}
    if name not in DATS or name in AS_PUBLISHED:
        return {}
    own, default = DATS[name].model_dump(), DATS["dat"].model_dump()
    return {key: value for key, value in training.items() if own.get(key) == default.get(key)}


def build(name: str, seed: int = 0, **training: Any) -> Retriever:
    """A fresh model.

    Args:
        name: One of :data:`MODELS`.
        training: Settings such as ``epochs`` or ``batch_size``. WALS, ItemCF and popularity take those that are theirs.
    """
    if name in DATS:
        return DATRetriever(dat_config(name, seed, **training))
    if name in ENCODERS:
        from training.fm import FM
        from training.mind import MIND
        from training.mvke import MVKE
        from training.neural import NeuralRival, RivalConfig
        from training.youtube_dnn import YouTubeDNN

        encoder = dict(zip(ENCODERS, (FM, YouTubeDNN, MIND, MVKE), strict=True))[name]
        return NeuralRival(encoder, RivalConfig(seed=seed, **training))
    if name == "wals":
        from training.wals import WALS

        return WALS(seed=seed, **_own(WALS, training))
    if name == "item-cf":
        from training.item_cf import ItemCF

        return ItemCF(**_own(ItemCF, training))
    from training.popularity import Popularity

    return Popularity(3_600_000 if name == "popularity-hour" else None)


def _own(kind: type, training: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that a model's constructor has."""
    return {name: value for name, value in training.items() if name in inspect.signature(kind).parameters}
