"""What every model of a comparison is: fitted to a training set, then asked for scores of test clicks."""

from typing import Protocol

from evaluation.ranks import Scorer
from evaluation.test_clicks import TestClicks
from training.training_set import TrainingSet


class Retriever(Protocol):
    """DAT and its rivals. A fitted retriever may score any number of test sets of the same window."""

    def fit(self, data: TrainingSet, cut_ms: int) -> None:
        """Learn from the window's clicks, which end at the cut."""

    def scorer(self, test: TestClicks, live: bool) -> Scorer:
        """Scores of test clicks; live: with every click before the one that is predicted, as far as the model can."""
