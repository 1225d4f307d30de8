"""MVKE (Xu et al. 2022), adapted to retrieval: virtual kernels that bridge the two towers.

In the paper a user tower reads its feature fields through K virtual kernels (each a learned attention query), and the
tag decides how the K outputs are mixed (virtual-kernel gate): ``score = Σ_k g_k(v) ⟨u_k, v⟩``. That is one inner
product of ``[u_1, …, u_K]`` and ``[g_1(v) v, …, g_K(v) v]``, so a nearest-neighbour index of K·d dimensions serves it
exactly.
"""

import torch
from torch import Tensor, nn

from evaluation.baselines.neural import Encoder, Prepared, RivalConfig, recent_rows
from model.features import Inputs
from model.settings.model import TowerConfig
from training.dat import as_tensors
from training.towers import Scale, Tower
from training.training_set import TrainingSet


class MVKE(Encoder):
    """K virtual-kernel experts over the query's fields (id, profile, activity, recent items), gated by the item."""

    normalise = False

    def __init__(self, data: TrainingSet, prepared: Prepared, config: RivalConfig):
        super().__init__()
        dim, spec = config.dim, data.query_spec
        self.temperature = config.temperature
        self.ids = nn.Embedding(len(data.queries) + 1, dim, sparse=True)
        self.codes = nn.Embedding(spec.codes, dim, padding_idx=0, sparse=True)
        self.clicked = nn.Embedding(len(data.items) + 1, dim, padding_idx=0, sparse=True)
        for table in (self.ids, self.codes, self.clicked):
            nn.init.normal_(table.weight, std=0.1)
            if table.padding_idx is not None:
                nn.init.zeros_(table.weight[0].detach())
        self.activity = nn.Linear(spec.dense_width, dim)
        self.kernels = nn.Parameter(torch.randn(config.interests, dim))
        self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.expert = nn.Sequential(nn.Linear(dim, 128), nn.ReLU(), nn.Linear(128, dim))
        self.item_tower = Tower(len(data.items), data.item_spec, 0, TowerConfig(output_dim=dim))
        self.item_tower.standardise(Scale().add(prepared.item_dense))

    def queries(self, inputs: Inputs) -> Tensor:
        rows, codes, dense = as_tensors(inputs)
        history = recent_rows(inputs)
        fields = torch.cat(
            [self.ids(rows)[:, None], self.codes(codes), self.activity(dense)[:, None], self.clicked(history)], dim=1
        )
        absent = torch.cat(
            [torch.zeros(len(rows), 1), codes == 0, torch.zeros(len(rows), 1), history == 0], dim=1
        ).bool()
        logits = self.kernels @ self.key(fields).transpose(1, 2) / fields.shape[2] ** 0.5  # [N, K, fields]
        weights = torch.softmax(logits.masked_fill(absent[:, None, :], -1e9), dim=2)
        experts = nn.functional.normalize(self.expert(weights @ self.value(fields)) + self.kernels, dim=2)
        return self.temperature * experts.flatten(1)[:, None]

    def items(self, inputs: Inputs) -> Tensor:
        vectors = self.item_tower(*as_tensors(inputs), torch.zeros(len(inputs), 0))
        gate = torch.softmax(vectors @ self.kernels.T, dim=1)
        return (gate[:, :, None] * vectors[:, None]).flatten(1)
