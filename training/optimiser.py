"""Adam whose cost follows the batch: its sparse form for every embedding table, the fused one for the dense layers."""

from typing import Any

import torch
from torch import Tensor, nn


class Optimiser:
    """One step touches the rows of the batch and the dense layers, however many ids there are.

    Args:
        embedding_scale: The embeddings' learning rate, as a multiple of the layers'. A rare id takes part in a few
            steps only, and Adam moves a number by about its learning rate a step: at the layers' rate it would hardly
            move.
        weight_decay: AdamW's, of the layers. clip: the largest norm of the layers' gradient.
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, *, embedding_scale: float = 1.0, weight_decay: float = 0.0,
        clip: float | None = None,
    ):  # fmt: skip
        tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        held = {id(table) for table in tables}
        dense = [parameter for parameter in model.parameters() if id(parameter) not in held]
        self.dense, self.clip = dense, clip
        self.rates = [learning_rate] * bool(dense) + [learning_rate * embedding_scale] * bool(tables)
        self.parts: list[torch.optim.Optimizer] = []
        if dense:
            self.parts.append(torch.optim.AdamW(dense, weight_decay=weight_decay, fused=True))
        if tables:
            self.parts.append(torch.optim.SparseAdam(tables))
        self.scale(1.0)

    def scale(self, factor: float) -> None:
        """Set the learning rates to ``factor`` times the configured ones."""
        for part, rate in zip(self.parts, self.rates, strict=True):
            for group in part.param_groups:
                group["lr"] = factor * rate

    def step(self, loss: Tensor) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.dense, self.clip)
        for part in self.parts:
            part.step()

    def state(self) -> list[dict[str, Any]]:
        """What the next step depends on, for a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def load_state(self, state: list[dict[str, Any]]) -> None:
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)
