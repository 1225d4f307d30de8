"""Checkpoints by epoch: training that is killed and started again ends in the very same weights."""

import os
from pathlib import Path
from typing import Any

import torch


def save(file: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers and texts; a crash leaves the previous file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{file.name}.{os.getpid()}")
    torch.save(state, staging)
    staging.replace(file)


def load(file: Path) -> dict[str, Any] | None:
    """The state of a checkpoint, or None if there is none. Nothing in it is executed."""
    return torch.load(file, weights_only=True) if file.is_file() else None
