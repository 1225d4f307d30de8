"""A run that dies between two epochs goes on from its checkpoint and ends in the same bytes."""

from pathlib import Path

import pytest

from tests.tiny import CUT_MS
from tests.training.data import CONFIG, GRADIENT, MEMORIES, training_set
from training.fit import fit

pytestmark = pytest.mark.trains


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("config", [MEMORIES, CONFIG, GRADIENT], ids=["memories", "amm", "paper"])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path: Path, config):
    data, ran = training_set(), []
    config = config.model_copy(update={"epochs": 3})

    def die(report):
        ran.append(report.epoch)
        if len(ran) == 2:
            raise Killed

    whole = fit(data, config, cut_ms=CUT_MS)
    file = tmp_path / "run" / "checkpoint.pt"
    with pytest.raises(Killed):
        fit(data, config, cut_ms=CUT_MS, on_epoch=die, checkpoint_file=file)
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
