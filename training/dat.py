"""The Dual Augmented Two-tower model: two towers, each fed an augmented vector of the other's outputs."""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.features import Inputs, InputSpec
from training.towers import Tower, TowerConfig


class DATConfig(BaseModel):
    """Everything that shapes the model and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tower: TowerConfig = TowerConfig()
    amm: Literal["point_in_time", "gradient", "off"] = "point_in_time"
    """``gradient``: a_u, a_v are parameters under eq. 2's loss, as published. ``point_in_time``: the window is replayed
    in order and each example reads the a_u, a_v from before it, which is what the stream will know."""
    memories: tuple[float, ...] = (0.4, 0.1, 0.02)
    """Step sizes α of the averages that make up an augmented vector, side by side."""
    loss: Literal["bce", "sampled_softmax"] = "sampled_softmax"
    temperature: float = Field(default=15.0, gt=0)
    """Scores are multiplied by this inside the loss (1 is eq. 4 to the letter)."""
    lambda_u: float = 0.5
    lambda_v: float = 0.5
    lambda_ca: float = 1.0
    query_id_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of examples whose query id is replaced by the unknown one, which is how that one is trained."""
    item_id_dropout: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=256, ge=2)
    epochs: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    seed: int = 0

    @property
    def memory_count(self) -> int:
        return 0 if self.amm == "off" else len(self.memories)


class DAT(nn.Module):
    """Query tower and item tower; ``score(u, v) = ⟨p_u, p_v⟩``."""

    def __init__(self, queries: int, items: int, query: InputSpec, item: InputSpec, config: DATConfig):
        super().__init__()
        augmented = config.memory_count * config.tower.output_dim
        self.query_tower = Tower(queries, query, augmented, config.tower)
        self.item_tower = Tower(items, item, augmented, config.tower)


@torch.inference_mode()
def represent(tower: Tower, inputs: Inputs, augmented: np.ndarray) -> np.ndarray:
    """Run a tower on arrays, without autograd: N inputs and their augmented vectors [N, M, d] → p [N, d] float32."""
    tower.eval()
    return tower(
        torch.from_numpy(np.ascontiguousarray(inputs.rows, np.int64)),
        torch.from_numpy(np.ascontiguousarray(inputs.codes, np.int64)),
        torch.from_numpy(np.ascontiguousarray(inputs.dense)),
        torch.from_numpy(np.ascontiguousarray(augmented.reshape(len(inputs), -1), np.float32)),
    ).numpy()


def as_tensors(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The tower's arguments (rows, codes, dense) of some inputs."""
    return torch.from_numpy(inputs.rows), torch.from_numpy(inputs.codes).long(), torch.from_numpy(inputs.dense)
