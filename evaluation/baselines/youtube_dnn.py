"""YouTubeDNN (Covington et al. 2016): a network over the mean of the watched items, against an item embedding each."""

import torch
from torch import Tensor, nn

from evaluation.baselines.neural import Encoder, Prepared, RivalConfig, recent_rows
from model.features import Inputs
from model.settings.model import TowerConfig
from training.dat import as_tensors
from training.towers import Scale, Tower
from training.training_set import TrainingSet


class YouTubeDNN(Encoder):
    """Query: mean embedding of its latest items, profile and activity through 256-128-d. Item: its embedding."""

    of_one_moment = False  # an embedding does not tell the time, and mixed batches have more to tell apart

    def __init__(self, data: TrainingSet, prepared: Prepared, config: RivalConfig):
        super().__init__()
        self.watched = nn.Embedding(len(data.items) + 1, config.dim, padding_idx=0, sparse=True)
        self.item = nn.Embedding(len(data.items) + 1, config.dim, sparse=True)
        for table in (self.watched, self.item):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.watched.weight[0].detach())
        # The network has no query id: row 0 of the tower's table serves all.
        self.tower = Tower(0, data.query_spec, config.dim, TowerConfig(output_dim=config.dim))
        self.tower.standardise(Scale().add(prepared.query.dense))

    def queries(self, inputs: Inputs) -> Tensor:
        rows, codes, dense = as_tensors(inputs)
        history = recent_rows(inputs)
        watched = self.watched(history).sum(1) / (history > 0).sum(1, keepdim=True).clamp(min=1)
        return self.tower(torch.zeros_like(rows), codes, dense, watched)[:, None]

    def items(self, inputs: Inputs) -> Tensor:
        return self.item(torch.from_numpy(inputs.rows))
