"""Two processes under Spark's TorchDistributor train the model that one trains, up to rounding."""

from pathlib import Path

import numpy as np
import pytest

from spark_jobs.distributed import train_together
from spark_jobs.session import spark_session
from tests.spark_jobs.conftest import FinishedNight
from training import checkpoint
from training.examples import load_training_set
from training.trainer import make_trainer


def test_two_processes_agree_with_one(finished_night: FinishedNight, tmp_path: Path):
    night = finished_night.settings.night
    config = night.model.model_copy(update={"epochs": 2, "batch_size": 101})  # 101: shares are not equal
    file = tmp_path / "checkpoint.pt"
    with spark_session(night, tmp_path / "spark") as spark:
        train_together(spark, 2, finished_night.folder, finished_night.card, config, None, file)
    data = load_training_set(finished_night.folder, finished_night.card)
    alone = make_trainer(data.examples, data.query, data.item, data.query_spec, data.item_spec, config)
    history = alone.run()
    together = checkpoint.load(file)
    assert [report["epoch"] for report in together["history"]] == [1, 2]
    for one, two in zip(history, together["history"], strict=True):
        assert one.loss == pytest.approx(two["loss"], rel=1e-3)
    start = make_trainer(data.examples, data.query, data.item, data.query_spec, data.item_spec, config)
    for name, weights in alone.parameters.state_dict().items():
        other, before = together["parameters"][name].numpy(), start.parameters.state_dict()[name].numpy()
        # Adam's step does not shrink with the gradient: where that is all rounding, single weights may part a little.
        moved = np.abs(weights.numpy() - before).mean()
        assert np.abs(weights.numpy() - other).mean() <= 0.01 * moved + 1e-7, name
