"""Train in several processes under Spark's TorchDistributor: on this machine, or over a cluster's executors.

The processes meet through a checkpoint: they bring it to its last epoch, and whoever asked goes on from there as after
a crash. On a cluster the home folder must lie where all machines see it.
"""

import contextlib
import io
from pathlib import Path

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from feature_repo.card import DatasetCard
from training.bundle import Bundle
from training.config import DATConfig
from training.examples import load_training_set
from training.trainer import make_trainer
from training.workers import join, leave


def train_together(
    spark: SparkSession, processes: int, folder: Path, dataset: DatasetCard, config: DATConfig,
    parent: Path | None, checkpoint_file: Path,
) -> None:  # fmt: skip
    """Run all epochs on ``training_sets/<date>`` in ``processes`` processes, each epoch ending in the checkpoint.

    Args:
        parent: The folder of the bundle to start from.
    """
    local = spark.sparkContext.master.startswith("local")
    distributor = TorchDistributor(num_processes=processes, local_mode=local, use_gpu=False)
    with contextlib.redirect_stdout(io.StringIO()):  # it repeats what every process prints
        distributor.run(
            work, str(folder.absolute()), dataset.model_dump_json(), config.model_dump_json(),
            str(parent.absolute()) if parent else None, str(checkpoint_file.absolute()),
        )  # fmt: skip


def work(folder: str, dataset: str, config: str, parent: str | None, checkpoint_file: str) -> None:
    """One of the processes. Paths and JSON, since what is given travels to another Python."""
    workers = join()
    data = load_training_set(Path(folder), DatasetCard.model_validate_json(dataset))
    trainer = make_trainer(
        data.examples, data.query, data.item, data.query_spec, data.item_spec,
        DATConfig.model_validate_json(config), Bundle.load(Path(parent)) if parent else None, workers,
    )  # fmt: skip
    trainer.run(file=Path(checkpoint_file))
    leave()
