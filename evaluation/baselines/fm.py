"""FM (Rendle 2010) for retrieval: pairwise interactions between query and item features as one inner product."""

import torch
from torch import Tensor, nn

from evaluation.baselines.neural import Encoder, Prepared, RivalConfig
from model.features import Inputs, InputSpec
from training.dat import as_tensors
from training.training_set import TrainingSet


class _Features(nn.Module):
    """The factors v_f of one side's features, summed: ids, category codes, and dense inputs times their value."""

    def __init__(self, ids: int, spec: InputSpec, dense: Tensor, dim: int):
        super().__init__()
        self.ids = nn.Embedding(ids + 1, dim, sparse=True)
        self.codes = nn.Embedding(spec.codes, dim, padding_idx=0, sparse=True)
        self.dense = nn.Linear(spec.dense_width, dim, bias=False)
        self.norm = nn.BatchNorm1d(spec.dense_width, affine=False)
        self.norm.running_mean, self.norm.running_var = dense.mean(0), dense.var(0)
        for table in (self.ids, self.codes):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.codes.weight[0].detach())

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Σ v_f x_f [N, d], and Σ over pairs of features ⟨v_f, v_g⟩ x_f x_g [N]."""
        rows, codes, dense = as_tensors(inputs)
        self.norm.eval()
        values = self.norm(dense)
        scaled = values[:, :, None] * self.dense.weight.T
        factors = torch.cat([self.ids(rows)[:, None], self.codes(codes), scaled], dim=1)
        total = factors.sum(1)
        return total, (total.square() - factors.square().sum(1)).sum(1) / 2


class FM(Encoder):
    """``⟨Σ v_f, Σ v_g⟩ + w_item``: what is left of FM's sum for one query, its own terms being equal for every item.

    The item's linear terms and its features' interactions with each other are one more dimension of its vector.
    """

    normalise = False

    def __init__(self, data: TrainingSet, prepared: Prepared, config: RivalConfig):
        super().__init__()
        query, item = torch.from_numpy(prepared.query.dense), torch.from_numpy(prepared.item_dense)
        self.query = _Features(len(data.queries), data.query_spec, query, config.dim)
        self.item = _Features(len(data.items), data.item_spec, item, config.dim)
        self.linear = _Features(len(data.items), data.item_spec, item, 1)

    def queries(self, inputs: Inputs) -> Tensor:
        total, _ = self.query(inputs)
        return torch.cat([total, torch.ones(len(total), 1)], dim=1)[:, None]

    def items(self, inputs: Inputs) -> Tensor:
        total, pairs = self.item(inputs)
        return torch.cat([total, pairs[:, None] + self.linear(inputs)[0]], dim=1)
