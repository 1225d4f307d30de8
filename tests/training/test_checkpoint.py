"""A run that dies between two epochs goes on from its checkpoint and ends in the same bytes."""

from pathlib import Path

import pytest

from tests.training.data import CARD, clicks, profiles
from tests.training.test_trainer import CONFIG
from training.trainer import fit
from training.window import make_examples


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("amm", ["point_in_time", "gradient", "off"])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path: Path, amm: str):
    made = make_examples(clicks(), profiles(), CARD)
    config = CONFIG.model_copy(update={"amm": amm, "epochs": 3})
    ran = []

    def die(report):
        ran.append(report.epoch)
        if len(ran) == 2:
            raise Killed

    def run(on_epoch, file):
        return fit(
            made.examples, made.query, made.item, made.query_spec, made.item_spec, config,
            on_epoch=on_epoch, checkpoint_file=file,
        )  # fmt: skip

    whole = run(lambda report: None, None)
    file = tmp_path / "run" / "checkpoint.pt"
    with pytest.raises(Killed):
        run(die, file)
    trained = []
    resumed = run(lambda report: trained.append(report.seconds), file)
    assert [report.loss for report in resumed.history] == [report.loss for report in whole.history]
    for name, weights in whole.model.state_dict().items():
        assert weights.numpy().tobytes() == resumed.model.state_dict()[name].numpy().tobytes(), name
    for side in ("queries", "items"):
        assert getattr(whole, side).a.tobytes() == getattr(resumed, side).a.tobytes()
        assert getattr(whole, side).vectors.tobytes() == getattr(resumed, side).vectors.tobytes()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
