"""Tune one model by Optuna on the validation cut, in a journal file that a later run goes on from."""

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import BaseModel

from evaluation.metrics import objective
from evaluation.studies.runs import Setup, Stage, Variant, run
from evaluation.studies.spaces import SPACES, defaults


class Tuned(BaseModel):
    """The best settings of a model, and the objective of each trial in order."""

    settings: dict
    values: list[float]


def tune(setup: Setup, name: str, trials: int, folder: Path, stage: Stage, seed: int = 0) -> Tuned:
    """The best of ``trials`` settings on the validation cut; the first are those that it starts from.

    Each trial's sampler is seeded by its number, so that a run that was cut short ends as it would have. A model with
    nothing to tune needs no trial.
    """
    space = SPACES[name]
    if not space:
        return Tuned(settings={}, values=[])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name="/".join(map(str, [name, *setup.identity])),
        storage=JournalStorage(JournalFileBackend(str(folder / "tuning.log"))),
        direction="maximize",
        load_if_exists=True,
    )
    complete = (optuna.trial.TrialState.COMPLETE,)
    while (done := len(study.get_trials(deepcopy=False, states=complete))) < trials:
        study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + done, n_startup_trials=5)
        if not done:
            study.enqueue_trial(defaults(name, setup.training))
        trial = study.ask(dict(space))
        with stage(f"{name}, trial {done + 1} of {trials}"):
            found, _ = run(setup, Variant(label=name, model=name, settings=trial.params), seed, tuning=True)
        study.tell(trial, objective(found.report.all))
    finished = study.get_trials(deepcopy=False, states=complete)[:trials]
    values = [float(trial.value or 0) for trial in finished]
    return Tuned(settings=finished[values.index(max(values))].params, values=values)
