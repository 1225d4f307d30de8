"""The models of a comparison, by name: DAT, its ablations, and its rivals."""

import inspect
from typing import Any

from evaluation.closed_form_choice import choose, is_open, with_choice
from evaluation.dat_scorer import LiveDAT, StaticDAT
from evaluation.retriever import Retriever
from evaluation.test_clicks import TestClicks
from model.closed_form_choice import ClosedFormChoice
from model.settings.model import AMM, PAPER, DATConfig
from model.settings.settings import merged
from training.fit import fit
from training.training_set import TrainingSet


class DATRetriever:
    """DAT with a given configuration, as a model of a comparison."""

    def __init__(self, config: DATConfig):
        self.config = config
        self.choice: ClosedFormChoice | None = None
        """What was chosen of the closed form, where the settings leave it open."""

    def choose(self, data: TrainingSet) -> None:
        """Choose what the settings leave open, as the night does."""
        if is_open(self.config):
            self.choice = choose(data, self.config)
        self.config = with_choice(self.config, self.choice)

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        self.choose(data)
        self.trained = fit(data, self.config, cut_ms=cut_ms)

    def scorer(self, test: TestClicks, live: bool) -> StaticDAT | LiveDAT:
        return (LiveDAT if live else StaticDAT)(self.trained, test)


OF_TRAINING = ("dim", "gaps", "span", "same_moment", "softmax", "dropout", "rare_clicks", "weight_decay")
"""Settings of DAT's memories that are not of what becomes of a click."""
ENCODERS = ("fm", "youtube-dnn", "mind", "mvke")
DETERMINISTIC = ("popularity", "popularity-hour", "item-cf", "ease")
"""Models that learn nothing at random: one run says it all."""
_GRADIENT: dict[str, Any] = {"temperature": 15.0, "item_id_dropout": 0.1}
_NO_ALIGNMENT = {"relu_head": False, "lambda_ca": 0.0}
DATS: dict[str, DATConfig] = {
    "dat": DATConfig(),
    "dat-amm": AMM,
    # The paper's training under a linear head, with temperature and dropout of item ids; without and with alignment.
    "dat-gradient": PAPER.model_copy(update={"paper": PAPER.paper.model_copy(update=_NO_ALIGNMENT), **_GRADIENT}),
    "dat-cal": PAPER.model_copy(update={"paper": PAPER.paper.model_copy(update={"relu_head": False}), **_GRADIENT}),
    "dat-paper": PAPER,
    "two-tower": AMM.model_copy(update={"ema_alphas": (), "query_id_dropout": 0.1}),
}
AS_PUBLISHED = ("dat-gradient", "dat-cal", "dat-paper")
"""Models whose settings are part of what they are."""
SEQUENCES = {
    "gru4rec": ("gru", False),
    "gru4rec-fresh": ("gru", True),
    "sasrec": ("sasrec", False),
    "hstu": ("hstu", False),
}
"""The network, and whether it reads the items' activity as of now."""
MODELS = (*DATS, "wals", *ENCODERS, *SEQUENCES, *DETERMINISTIC)


def dat_config(name: str, seed: int = 0, **training: Any) -> DATConfig:
    """The configuration of one of :data:`DATS` with some settings changed; ``tower`` may be a dictionary."""
    return DATConfig.model_validate(merged(DATS[name].model_dump(), training) | {"seed": seed})


def applicable(name: str, training: dict[str, Any]) -> dict[str, Any]:
    """Those of some settings of DAT that a model takes over.

    A rival's vectors are as long as DAT's, and its logQ correction counts over as many clicks; all else is its own.
    """
    if name == "dat":
        return training
    if name in SEQUENCES:  # trained as DAT is; only the network is another
        memory = {key: value for key, value in training.get("memory", {}).items() if key in OF_TRAINING}
        rest = {key: value for key, value in training.items() if key not in ("memory", "closed_form", "preset")}
        return rest | ({"memory": memory} if memory else {})
    dim, window = training.get("memory", {}).get("dim"), training.get("logq_window")
    own: dict[str, Any] = {"logq_window": window} if window is not None else {}
    if name in ENCODERS:
        return own | ({"dim": dim} if dim else {})
    if name in ("dat-amm", "two-tower"):
        return own | ({"tower": {"embedding_dim": dim, "output_dim": dim}} if dim else {})
    return {}


def build(name: str, seed: int = 0, **training: Any) -> Retriever:
    """A fresh model.

    Args:
        name: One of :data:`MODELS`.
        training: Settings such as ``epochs`` or ``batch_size``. WALS, ItemCF and popularity take those that are theirs.
    """
    if name in DATS:
        return DATRetriever(dat_config(name, seed, **training))
    if name in ENCODERS:
        from evaluation.baselines.fm import FM
        from evaluation.baselines.mind import MIND
        from evaluation.baselines.mvke import MVKE
        from evaluation.baselines.neural import NeuralRival, RivalConfig
        from evaluation.baselines.youtube_dnn import YouTubeDNN

        encoder = dict(zip(ENCODERS, (FM, YouTubeDNN, MIND, MVKE), strict=True))[name]
        return NeuralRival(encoder, RivalConfig(seed=seed, **training))
    if name == "wals":
        from evaluation.baselines.wals import WALS

        return WALS(seed=seed, **_own(WALS, training))
    if name in SEQUENCES:
        from evaluation.baselines.sequence import SequenceModel

        return SequenceModel(*SEQUENCES[name], seed=seed, **training)
    if name == "ease":
        from evaluation.baselines.ease import EASE

        return EASE(**_own(EASE, training))
    if name == "item-cf":
        from evaluation.baselines.item_cf import ItemCF

        return ItemCF(**_own(ItemCF, training))
    from evaluation.baselines.popularity import Popularity

    return Popularity(3_600_000 if name == "popularity-hour" else None)


def _own(kind: type, training: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that a model's constructor has."""
    return {name: value for name, value in training.items() if name in inspect.signature(kind).parameters}
