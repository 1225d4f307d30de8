"""MIND (Li et al. 2019): several interests a query, routed from its items; each answers for the items it fits."""

import torch
from torch import Tensor, nn

from evaluation.baselines.neural import Encoder, Prepared, RivalConfig, recent_rows
from model.features import Inputs
from model.settings.model import TowerConfig
from training.dat import as_tensors
from training.towers import Scale, Tower
from training.training_set import TrainingSet

ROUTINGS = 3
SHARPNESS = 15.0  # of the label-aware attention: 0 is the mean of the interests, large the best one, as in retrieval


class MIND(Encoder):
    """Behaviour-to-interest dynamic routing, an interest tower that also reads the profile, label-aware attention."""

    def __init__(self, data: TrainingSet, prepared: Prepared, config: RivalConfig):
        super().__init__()
        self.interests = config.interests
        self.clicked = nn.Embedding(len(data.items) + 1, config.dim, padding_idx=0, sparse=True)
        nn.init.normal_(self.clicked.weight, std=0.1)
        nn.init.zeros_(self.clicked.weight[0].detach())
        self.bilinear = nn.Linear(config.dim, config.dim, bias=False)  # S of the routing, shared by all pairs
        self.start: Tensor
        self.register_buffer(
            "start", torch.randn(config.history, config.interests)
        )  # fixed random logits, as published
        self.query_tower = Tower(0, data.query_spec, config.dim, TowerConfig(output_dim=config.dim))
        self.item_tower = Tower(len(data.items), data.item_spec, 0, TowerConfig(output_dim=config.dim))
        self.query_tower.standardise(Scale().add(prepared.query.dense))
        self.item_tower.standardise(Scale().add(prepared.item_dense))

    def queries(self, inputs: Inputs) -> Tensor:
        rows, codes, dense = as_tensors(inputs)
        capsules = self.route(recent_rows(inputs))  # [N, K, d]
        size, count, dim = capsules.shape
        spread = torch.arange(size).repeat_interleave(count)
        vectors = self.query_tower(
            torch.zeros_like(rows)[spread], codes[spread], dense[spread], capsules.reshape(-1, dim)
        )
        return vectors.view(size, count, -1)

    def route(self, history: Tensor) -> Tensor:
        """[N, L] rows of items → [N, K, d] interest capsules. The routing itself carries no gradient but the last."""
        items = self.bilinear(self.clicked(history))
        missing = (history == 0)[:, :, None]
        logits = self.start.expand(len(history), -1, -1)
        for turn in range(ROUTINGS):
            weights = torch.softmax(logits, dim=2).masked_fill(missing, 0.0)
            source = items if turn == ROUTINGS - 1 else items.detach()
            capsules = squash(weights.transpose(1, 2) @ source)
            if turn < ROUTINGS - 1:
                logits = logits + items.detach() @ capsules.transpose(1, 2)
        return capsules

    def attend(self, interests: Tensor, items: Tensor) -> Tensor:
        fit = (interests @ items[:, :, None])[:, :, 0]
        weights = torch.softmax(SHARPNESS * fit, dim=1)
        return (weights[:, :, None] * interests).sum(1)

    def items(self, inputs: Inputs) -> Tensor:
        return self.item_tower(*as_tensors(inputs), torch.zeros(len(inputs), 0))


def squash(capsules: Tensor) -> Tensor:
    """The capsules' non-linearity: direction kept, length squeezed below 1."""
    squared = capsules.square().sum(-1, keepdim=True)
    return squared / (1 + squared) * capsules / (squared + 1e-9).sqrt()
