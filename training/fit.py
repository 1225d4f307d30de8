"""Fit DAT to a window of clicks, by the trainer of its preset."""

from pathlib import Path

from model.bundle import Bundle
from model.settings.model import DATConfig
from training.diagnostics import EpochReport
from training.memory_trainer import MemoryTrainer
from training.paper import PaperTrainer
from training.trained_model import TrainedModel
from training.trainer import OnEpoch, Trainer
from training.training_set import TrainingSet


def fit(
    data: TrainingSet, config: DATConfig, *, cut_ms: int, initial: Bundle | None = None,
    on_epoch: OnEpoch = lambda report: None, checkpoint_file: Path | None = None,
) -> TrainedModel:  # fmt: skip
    """Train DAT on a window of clicks.

    Args:
        cut_ms: The end of the window, the moment of the vectors in the result.
        initial: Start from this bundle's weights, where sizes and ids allow. Its augmented vectors are not taken over:
            they lie in another space, and have absorbed clicks of this window.
        on_epoch: Called after each epoch.
        checkpoint_file: Written after each epoch, and within long ones. Where it exists, left by a run with the same
            arguments, training goes on from there and ends in the same result.
    """
    trainer = make_trainer(data, config, initial)
    return settled(trainer, trainer.run(on_epoch, checkpoint_file), cut_ms)


def settled(trainer: Trainer, epochs: list[EpochReport], cut_ms: int) -> TrainedModel:
    """The model of a trainer that has run, with both sides replayed up to the cut."""
    data = trainer.data
    queries, items = trainer.settle()
    model = TrainedModel(
        trainer.numpy_towers(),
        queries,
        items,
        data.query_spec,
        data.item_spec,
        trainer.config,
        cut_ms,
        data.excludes_seen,
        epochs,
    )
    return model.with_vectors(queries, items, cut_ms)


def make_trainer(data: TrainingSet, config: DATConfig, initial: Bundle | None = None) -> Trainer:
    """The trainer of a configuration's preset, before its first epoch."""
    kinds: dict[str, type[Trainer]] = {"memories": MemoryTrainer, "amm": Trainer, "paper": PaperTrainer}
    return kinds[config.preset](data, config, initial)
