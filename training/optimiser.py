"""Adam whose cost follows the batch: its sparse form for every embedding table, the fused one for the dense layers."""

from typing import Any

import torch
from torch import Tensor, nn

from training.workers import ALONE, Workers


class Optimiser:
    """One step touches the rows of the batch and the dense layers, however many ids there are."""

    def __init__(self, model: nn.Module, learning_rate: float, workers: Workers = ALONE):
        tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        held = {id(table) for table in tables}
        dense = [parameter for parameter in model.parameters() if id(parameter) not in held]
        self.learning_rate, self.workers = learning_rate, workers
        self.parameters = [*dense, *tables]
        self.parts: list[torch.optim.Optimizer] = []
        if dense:
            self.parts.append(torch.optim.Adam(dense, lr=learning_rate, fused=True))
        if tables:
            self.parts.append(torch.optim.SparseAdam(tables, lr=learning_rate))

    def scale(self, factor: float) -> None:
        """Set the learning rate to ``factor`` times the configured one."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = factor * self.learning_rate

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
