"""The two towers (paper, section 2.2, eq. 1): embeddings, augmented vector, fully connected layers, L2 norm."""

import torch
from torch import Tensor, nn

from training.config import TowerConfig
from training.features import InputSpec


class Latest(nn.Module):
    """Averages of a query's latest items' embeddings, weighted by how long ago each is, as an augmented vector's are.

    Args:
        items: How many have an embedding; row 0 is no item.
        places: L.
        memories: Step sizes α of the averages: a place counts ``1 − α`` times as much as the one before it.
        width: E.
    """

    def __init__(self, items: int, places: int, memories: tuple[float, ...], width: int):
        super().__init__()
        self.items = nn.Embedding(items + 1, width, padding_idx=0, sparse=True)
        nn.init.normal_(self.items.weight, std=0.1)
        nn.init.zeros_(self.items.weight[0].detach())
        self.width = len(memories) * width
        keep = 1 - torch.tensor(memories)[:, None]
        self.register_buffer("weight", keep ** torch.arange(places), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """rows [N, L], newest first, 0 = none → [N, len(memories) · E]; zeros where there is no item."""
        weight = self.weight * (rows > 0)[:, None, :]
        weight = weight / weight.sum(2, keepdim=True).clamp(min=1e-12)
        return (weight @ self.items(rows)).flatten(1)


class Tower(nn.Module):
    """Maps one side's inputs to its representation p on the unit sphere.

    Args:
        ids: How many ids have an embedding of their own; row 0 is shared by all others.
        spec: The side's features.
        augmented_dim: M · d, the width of the augmented vector (0: a plain two-tower model).
        latest: What reads a query's latest items (None: nothing does).
    """

    def __init__(
        self, ids: int, spec: InputSpec, augmented_dim: int, config: TowerConfig, latest: Latest | None = None
    ):
        super().__init__()
        self.slots = [field.slots for field in spec.categories]
        width = config.embedding_dim
        self.ids = nn.Embedding(ids + 1, width, sparse=True)
        self.features = nn.Embedding(spec.codes, width, padding_idx=0, sparse=True)
        for table in (self.ids, self.features):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.features.weight[0].detach())
        self.latest = latest
        self.embedded = width * (1 + len(self.slots)) + (latest.width if latest else 0)
        sizes = [self.embedded + spec.dense_width + augmented_dim, *config.hidden, config.output_dim]
        layers: list[nn.Module] = []
        for wide, narrow in zip(sizes[:-1], sizes[1:], strict=True):
            # He's initialisation without bias: by PyTorch's default the biases drown the inputs, and all outputs are
            # alike at first.
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
            nn.init.zeros_(layers[-2].bias)
        self.shortcut = None
        if config.shortcut and config.head == "linear":
            self.shortcut = nn.Linear(sizes[0], config.output_dim, bias=False)
            nn.init.zeros_(self.shortcut.weight)
        self.register_buffer("dense_mean", torch.zeros(spec.dense_width))
        self.register_buffer("dense_std", torch.ones(spec.dense_width))
        self.layers = nn.Sequential(*(layers if config.head == "relu" else layers[:-1]))

    def standardise(self, dense: Tensor) -> None:
        """Learn the dense inputs' scale from training inputs [N, K]: unscaled, a log-age drowns an embedding."""
        self.dense_mean = dense.mean(0)
        self.dense_std = dense.std(0, correction=0).clamp(min=1e-3)

    def forward(
        self,
        rows: Tensor,
        codes: Tensor,
        dense: Tensor,
        augmented: Tensor,
        latest: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """rows [N], codes [N, C], dense [N, K], augmented [N, M·d], latest [N, L] → p [N, output_dim], unit length.

        scale: [N, ``embedded``] factors of the embeddings' numbers, for dropout.
        """
        parts = [self.ids(rows)]
        for field in torch.split(codes, self.slots, dim=1) if self.slots else ():
            embedded = self.features(field)
            if field.shape[1] == 1:
                parts.append(embedded[:, 0])
            else:
                filled = (field > 0).sum(1, keepdim=True).clamp(min=1)
                parts.append(embedded.sum(1) / filled)
        if self.latest is not None:
            parts.append(self.latest(latest))
        embedded = torch.cat(parts, dim=1)
        if scale is not None:
            embedded = embedded * scale
        z = torch.cat([embedded, (dense - self.dense_mean) / self.dense_std, augmented], dim=1)
        h = self.layers(z) if self.shortcut is None else self.layers(z) + self.shortcut(z)
        return nn.functional.normalize(h, dim=1)
