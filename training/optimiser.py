"""Adam whose cost follows the batch: its sparse form for every embedding table, the fused one for the dense layers."""

from typing import Any

import torch
from torch import Tensor, nn

from training.workers import ALONE, Workers


class Optimiser:
    """One step touches the rows of the batch and the dense layers, however many ids there are.

    Args:
        table_rate: The tables' learning rate, as a multiple of the layers'. A rare id takes part in a few steps only,
            and Adam moves a number by about its learning rate a step: at the layers' rate it would hardly move.
    """

    def __init__(self, model: nn.Module, learning_rate: float, workers: Workers = ALONE, *, table_rate: float = 1.0):
        tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        held = {id(table) for table in tables}
        dense = [parameter for parameter in model.parameters() if id(parameter) not in held]
        self.workers = workers
        self.parameters = [*dense, *tables]
        self.rates = [learning_rate] * bool(dense) + [learning_rate * table_rate] * bool(tables)
        self.parts: list[torch.optim.Optimizer] = []
        if dense:
            self.parts.append(torch.optim.Adam(dense, fused=True))
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
        self.workers.sum_gradients(self.parameters)
        for part in self.parts:
            part.step()

    def state(self) -> list[dict[str, Any]]:
        """What the next step depends on, for a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def restore(self, state: list[dict[str, Any]]) -> None:
        for part, held in zip(self.parts, state, strict=True):
            part.load_state_dict(held)
