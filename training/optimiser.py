"""Adam whose cost follows the batch: its sparse form for every embedding table, the fused one for the dense layers."""

import torch
from torch import Tensor, nn


class Optimiser:
    """One step touches the rows of the batch and the dense layers, however many ids there are."""

    def __init__(self, model: nn.Module, learning_rate: float):
        tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        held = {id(table) for table in tables}
        dense = [parameter for parameter in model.parameters() if id(parameter) not in held]
        self.learning_rate = learning_rate
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
        for part in self.parts:
            part.step()
