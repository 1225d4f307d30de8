"""What every model of a comparison is: fitted to a window, then asked for scores over a replay."""

from typing import Protocol

from training.evaluation import Scorer
from training.examples import TrainingSet
from training.replay import Replay


class Retriever(Protocol):
    """DAT and its rivals. A fitted retriever may score any number of replays of the same window."""

    def fit(self, window: TrainingSet) -> None:
        """Learn from the window's examples and states."""
        ...

    def scorer(self, replay: Replay, live: bool) -> Scorer:
        """Scores over a replay; live: with every click before the one that is predicted, as far as the model can."""
        ...
