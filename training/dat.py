"""The Dual Augmented Two-tower model: two towers, each fed an augmented vector of the other's outputs."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from training.config import DATConfig
from training.features import Inputs, InputSpec
from training.towers import Latest, Tower


class DAT(nn.Module):
    """Query tower and item tower; ``score(u, v) = ⟨p_u, p_v⟩``."""

    def __init__(self, queries: int, items: int, query: InputSpec, item: InputSpec, config: DATConfig):
        super().__init__()
        width_u, width_v = (len(config.memories_of(side)) * config.tower.output_dim for side in ("query", "item"))
        latest = None
        if config.latest:
            latest = Latest(items, config.latest, config.latest_memories, config.tower.embedding_dim)
        self.query_tower = Tower(queries, query, width_u, config.tower, latest)
        self.item_tower = Tower(items, item, width_v, config.tower)


@torch.inference_mode()
def represent(tower: Tower, inputs: Inputs, augmented: np.ndarray) -> np.ndarray:
    """Run a tower on arrays, without autograd: N inputs and their augmented vectors [N, M, d] → p [N, d] float32."""
    tower.eval()
    return tower(
        torch.from_numpy(np.ascontiguousarray(inputs.rows, np.int64)),
        torch.from_numpy(np.ascontiguousarray(inputs.codes, np.int64)),
        torch.from_numpy(np.ascontiguousarray(inputs.dense)),
        torch.from_numpy(
            np.ascontiguousarray(augmented.reshape(len(inputs), math.prod(augmented.shape[1:])), np.float32)
        ),
        None if inputs.latest is None else torch.from_numpy(np.ascontiguousarray(inputs.latest, np.int64)),
    ).numpy()


def as_tensors(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The tower's arguments (rows, codes, dense) of some inputs."""
    return torch.from_numpy(inputs.rows), torch.from_numpy(inputs.codes).long(), torch.from_numpy(inputs.dense)
