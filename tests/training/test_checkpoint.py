"""A run that dies, between two epochs or within one, goes on from its checkpoint and ends in the same bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import CUT_MS
from tests.training.data import CONFIG, GRADIENT, MEMORIES, training_set
from training import checkpoint, trainer
from training.fit import fit

pytestmark = pytest.mark.trains


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("config", [MEMORIES, CONFIG, GRADIENT], ids=["memories", "amm", "paper"])
@pytest.mark.parametrize("within", [False, True], ids=["between epochs", "within an epoch"])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path: Path, config, within: bool, monkeypatch):
    data, ran = training_set(), []
    config = config.model_copy(update={"epochs": 3})

    def die(*_) -> None:
        ran.append(1)
        if len(ran) == 2:
            raise Killed

    def dying(save: Callable) -> Callable:
        """Killed once a checkpoint of the second epoch has been written after its tenth block."""

        def saved(file: Path, state: dict) -> None:
            save(file, state)
            if len(state["reports"]) == 1 and state["position"] >= 320:
                raise Killed

        return saved

    whole = fit(data, config, cut_ms=CUT_MS)
    file = tmp_path / "run" / "checkpoint.pt"
    with pytest.raises(Killed), monkeypatch.context() as patch:
        if within:
            patch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
            patch.setattr(checkpoint, "save", dying(checkpoint.save))
        fit(data, config, cut_ms=CUT_MS, on_epoch=(lambda report: None) if within else die, checkpoint_file=file)
    seen = []
    resumed = fit(data, config, cut_ms=CUT_MS, on_epoch=lambda report: seen.append(report.epoch), checkpoint_file=file)
    assert seen == [1, 2, 3], "also the epochs of before are shown"
    assert [report.loss for report in resumed.epochs] == [report.loss for report in whole.epochs]
    for name, weights in whole.towers.weights.items():
        assert weights.tobytes() == resumed.towers.weights[name].tobytes(), name
    for side in ("queries", "items"):
        for name in ("a", "vectors", "update_count"):
            assert getattr(getattr(whole, side), name).tobytes() == getattr(getattr(resumed, side), name).tobytes()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
