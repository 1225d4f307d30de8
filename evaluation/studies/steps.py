"""A short search of DAT's settings on a log's tuning cut: a step at a time, and what helps is kept.

Finished trials stay in a journal, so that a search that was stopped goes on where it was.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from evaluation.bootstrap import GAIN, SURE, share_better
from evaluation.metrics import objective
from evaluation.studies.runs import Journal, Setup, Stage, Variant, key_of, run
from model.settings.settings import merged


class Step(BaseModel):
    """Settings to try on top of the best so far, and what they are good for."""

    name: str
    settings: dict[str, Any] = {}
    negatives: int | None = None
    times: dict[str, float] = {}
    """Settings that are multiplied."""

    def after(self, settings: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
        """Settings with this step's."""
        scaled = {key: type(default[key])(settings.get(key, default[key]) * by) for key, by in self.times.items()}
        return merged(settings, self.settings | scaled)


STEPS: tuple[Step, ...] = (
    Step(name="more dropout: few clicks a person", settings={"memory": {"dropout": 0.4}, "item_id_dropout": 0.3}),
    Step(name="less dropout: many clicks a person", settings={"memory": {"dropout": 0.05}}),
    Step(name="the closed form's weight as the log has it", settings={"closed_form": {"weight": "auto"}}),
    Step(name="rare items by their features", settings={"memory": {"rare_clicks": 5.0}}),
    Step(name="longer vectors", settings={"memory": {"dim": 128}}),
    Step(name="larger batches", times={"batch_size": 2, "learning_rate": 1.5}),
    Step(name="twice the epochs", times={"epochs": 2}),
    Step(name="half the epochs", times={"epochs": 0.5}),
)
"""The epochs come last, since they depend on all else."""


class Trial(BaseModel):
    """What a step came to: the objective with it and of the best before it, on the tuning cut."""

    name: str
    settings: dict[str, Any]
    negatives: int
    hr50: float
    hr100: float
    mrr10: float
    value: float
    best_before: float
    sure: float
    """In what share of resamples of the queries it is above the best before it."""
    kept: bool
    seconds: float


def search(
    setup: Setup, default: dict[str, Any], stage: Stage, journal: Journal, steps: Sequence[Step] = STEPS,
    gain: float = GAIN, seed: int = 0, enough: Callable[[int], bool] = lambda done: False,
) -> list[Trial]:  # fmt: skip
    """Try each step on top of what was kept, and keep it if it gains.

    Args:
        default: All settings of the model.
        journal: Of this log and these questions alone; a trial that it has is not done again.
        gain: How much better (as a share of the objective) a step must be, and for other people, too
            (:data:`evaluation.bootstrap.SURE`): less is chance.
        enough: Asked, with the number of trials so far, before each that the journal lacks; the search ends where it
            says so.

    Returns:
        The trials in order; the first is what the card has, and counts as kept.
    """
    settings, negatives, best = dict(setup.training), setup.negatives, 0.0
    trials: list[Trial] = []
    best_key, known = "", set[str]()
    for step in (Step(name="as it is"), *steps):
        tried = step.after(settings, default)
        drawn = step.negatives or negatives
        variant = Variant(label="dat", model="dat", settings=tried, negatives=drawn)
        key = key_of(setup, variant, seed)
        if key in known:
            continue
        known.add(key)
        if key not in journal.runs:
            if trials and enough(len(trials)):
                break
            with stage(step.name):
                found, ranks = run(setup, variant, seed, tuning=True)
            journal.put(key, {"step": step.name, "variant": variant.model_dump()}, found, ranks)
        found = journal.runs[key]
        metrics = found.report.all
        value, sure = objective(metrics), 1.0
        if trials:
            people = setup.split(seed, drawn, tuning=True).test.clicks.queries
            sure = share_better(journal.ranks(key), journal.ranks(best_key), people)
        kept = not trials or (value > best * (1 + gain) and sure >= SURE)
        trials.append(
            Trial(
                name=step.name, settings=tried, negatives=drawn, hr50=metrics.hr50, hr100=metrics.hr100,
                mrr10=metrics.mrr10, value=value, best_before=best, sure=sure, kept=kept, seconds=found.seconds,
            )
        )  # fmt: skip
        if kept:
            settings, negatives, best, best_key = tried, drawn, value, key
    return trials
