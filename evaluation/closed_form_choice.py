"""What the closed form is worth on a log: chosen on its newest clicks, before the model that is published is trained.

The closed form is no part of the training loss, and its score is a part of the inner product. So one model, trained
without the newest clicks, tells what every weight would have found of them.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.bootstrap import GAIN, METRICS, SURE, sure_of_best
from evaluation.dat_scorer import LiveDAT, StaticDAT
from evaluation.held_out import hold_out
from evaluation.metrics import Metrics, objective
from evaluation.ranks import Vectors, rank_clicks, ranks
from evaluation.test_clicks import TestClicks
from model.closed_form_choice import ClosedFormChoice
from model.settings.model import DATConfig
from training.fit import make_trainer, settled
from training.trainer import OnEpoch
from training.training_set import TrainingSet

Array = np.ndarray
Pair = tuple[float, float]
"""A weight and a ridge penalty."""
WEIGHTS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
PENALTIES = 1.0, 0.1
"""Of the settings' ridge penalty: few clicks want less of it."""
MOST_CLICKS, MOST_ITEMS = 200_000, 10_000
"""Of larger windows nothing is chosen: the closed form helps where clicks are few, and its matrix is dense."""


def is_open(config: DATConfig) -> bool:
    """Whether the weight is to be chosen."""
    return config.preset == "memories" and config.closed_form.weight == "auto"


def taken_over(data: TrainingSet, config: DATConfig, earlier: ClosedFormChoice | None) -> ClosedFormChoice | None:
    """An earlier choice, if it still holds: for the same card and settings, and a window of about the size."""
    return earlier if earlier and earlier.holds(_asked(data, config), len(data)) else None


def with_choice(config: DATConfig, choice: ClosedFormChoice | None) -> DATConfig:
    """The settings with what was chosen; without a choice those that have no closed form."""
    if choice is not None:
        return with_closed_form(config, choice.weight, choice.l2)
    return with_closed_form(config, 0.0, config.closed_form.l2) if config.closed_form.weight == "auto" else config


def _asked(data: TrainingSet, config: DATConfig) -> str:
    """A hash of the card and the settings that a choice depends on."""
    known = [data.card.model_dump(mode="json"), config.model_dump(mode="json"), data.width]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def choose(
    data: TrainingSet, config: DATConfig, on_epoch: OnEpoch = lambda report: None, checkpoint_file: Path | None = None
) -> ClosedFormChoice:
    """Choose weight and ridge penalty on the newest clicks of a training set, by a model trained on the others.

    The weight is 0, unless another gains more than chance (:func:`evaluation.bootstrap.sure_of_best`).

    Args:
        on_epoch: Called after each epoch of that model.
        checkpoint_file: As of :func:`training.fit.fit`.
    """

    l2 = config.closed_form.l2

    def chosen(pair: Pair, why: str) -> ClosedFormChoice:
        return ClosedFormChoice(weight=pair[0], l2=pair[1], why=why, clicks=len(data), asked=_asked(data, config))

    def too_many(count: int, most: int, what: str) -> ClosedFormChoice:
        return chosen((0.0, l2), f"the window has {count:,} {what}, and up to {most:,} one is tried")

    if len(data) > MOST_CLICKS:
        return too_many(len(data), MOST_CLICKS, "clicks")
    if (items := len(np.unique(data.clicks.items))) > MOST_ITEMS:
        return too_many(items, MOST_ITEMS, "clicked items")
    held = hold_out(data)
    if held is None:
        return chosen((0.0, l2), "the window is too short to hold its newest clicks out")
    kept, test = held
    trainer = make_trainer(kept, with_closed_form(config, 1.0, l2))
    epochs = trainer.run(on_epoch, checkpoint_file)
    found: dict[Pair, Array] = {}
    for penalty in (share * l2 for share in PENALTIES):
        trainer.config = with_closed_form(config, 1.0, penalty)
        model = settled(trainer, epochs, test.cut_ms)
        weighted = _Weighted(WEIGHTS, model.config.closed_rank)
        rank_clicks((StaticDAT if data.last_out else LiveDAT)(model, test), test, observer=weighted)
        found |= zip(((weight, penalty) for weight in WEIGHTS), weighted.ranks(), strict=True)
    return chosen(*_best(found, test))


def with_closed_form(config: DATConfig, weight: float, l2: float) -> DATConfig:
    closed_form = config.closed_form.model_copy(update={"weight": weight, "l2": l2})
    return config.model_copy(update={"closed_form": closed_form})


@dataclass
class _Weighted:
    """Ranks the clicks of an evaluation once more by weight, from vectors whose last dimensions are the closed form."""

    weights: tuple[float, ...]
    rank: int
    parts: list[Array] = field(default_factory=list)

    def block(self, vectors: Vectors, targets: Array, exists: Array, seen: tuple[Array, Array] | None) -> None:
        """See :class:`evaluation.ranks.RankObserver`."""
        queries, items, at = vectors.queries[:, 0], vectors.items, -self.rank
        learned, closed = queries[:, :at] @ items[:, :at].T, queries[:, at:] @ items[:, at:].T
        self.parts.append(
            np.stack([ranks(learned + np.float32(w) * closed, targets, exists, seen) for w in self.weights])
        )

    def ranks(self) -> Array:
        """[W, N]."""
        return np.concatenate(self.parts, axis=1)


def _best(found: dict[Pair, Array], test: TestClicks) -> tuple[Pair, str]:
    """Weight and penalty, and why, of the ranks [N] that each came to; the first has none."""
    metrics = {pair: Metrics.of(of) for pair, of in found.items()}
    value = {pair: objective(of) for pair, of in metrics.items()}
    none, *others = found
    best = max(others, key=value.__getitem__)
    sure = sure_of_best([found[pair] for pair in others], found[none], others.index(best), test.clicks.queries)
    helps = value[best] > value[none] * (1 + GAIN) and sure >= SURE
    rates = [" / ".join(f"{getattr(metrics[pair], name):.3f}" for name in METRICS) for pair in (best, none)]
    why = (
        f"of the newest {len(test):,} clicks, held out, HR@50 / HR@100 / MRR×10 {rates[0]} with "
        f"{best[0]:g} and l2 = {best[1]:g}, {rates[1]} with 0 ({sure:.0%} sure{'' if helps else ': chance'})"
    )
    return best if helps else none, why
