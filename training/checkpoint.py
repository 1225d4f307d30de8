"""Checkpoints, after an epoch and within: training that is killed and started again ends in the very same weights."""

from pathlib import Path
from typing import Any

import torch

from feature_repo.atomic import atomic_write


def save(file: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers and texts; a crash leaves the previous file."""
    # Into an open file: given a path, torch hides the system's error (a full disk) behind one of its own.
    with atomic_write(file) as staging, staging.open("wb") as out:
        torch.save(state, out)


def load(file: Path) -> dict[str, Any] | None:
    """The state of a checkpoint, or None if there is none. Nothing in it is executed."""
    return torch.load(file, weights_only=True) if file.is_file() else None
