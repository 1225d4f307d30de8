"""The Dual Augmented Two-tower model: two towers, each fed an augmented vector of the other's outputs."""

import numpy as np
import torch
from torch import Tensor, nn

from model.features import Inputs, InputSpec
from model.memory import MovingAverages
from model.settings.model import DATConfig
from training.towers import RecentItems, Tower


class DAT(nn.Module):
    """Query tower and item tower; ``score(u, v) = ⟨p_u, p_v⟩``. The weights' names are those of the NumPy towers."""

    def __init__(self, queries: int, items: int, query: InputSpec, item: InputSpec, config: DATConfig):
        super().__init__()
        recent = None
        if config.history:
            recent = RecentItems(items, config.history, config.recent_alphas, config.tower.embedding_dim)
        width, relu_head = config.query_state_dim, config.relu_head
        self.query_tower = Tower(queries, query, width, config.tower, recent, relu_head)
        self.item_tower = Tower(items, item, width, config.tower, relu_head=relu_head)

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of all weights by name."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}


class TorchTowers:
    """The towers as functions of arrays, without autograd: what the replay runs while training goes on."""

    def __init__(self, model: DAT, config: DATConfig):
        self.model, self.memory = model, MovingAverages(config.ema_alphas)

    def query(self, inputs: Inputs, augmented: np.ndarray) -> np.ndarray:
        return represent(self.model.query_tower, inputs, augmented)

    def item(self, inputs: Inputs, augmented: np.ndarray) -> np.ndarray:
        return represent(self.model.item_tower, inputs, augmented)

    read = item


@torch.inference_mode()
def represent(tower: Tower, inputs: Inputs, augmented: np.ndarray) -> np.ndarray:
    """N inputs and their augmented vectors [N, A] → p [N, d] float32."""
    rows, codes, dense = as_tensors(inputs)
    recent = None if inputs.recent is None else torch.from_numpy(np.ascontiguousarray(inputs.recent, np.int64))
    return tower(rows, codes, dense, torch.from_numpy(np.ascontiguousarray(augmented, np.float32)), recent).numpy()


def as_tensors(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The tower's arguments (rows, codes, dense) of some inputs."""
    return (
        torch.from_numpy(np.ascontiguousarray(inputs.rows, np.int64)),
        torch.from_numpy(np.ascontiguousarray(inputs.codes, np.int64)),
        torch.from_numpy(np.ascontiguousarray(inputs.dense)),
    )
