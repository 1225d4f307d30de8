"""The two towers (paper, section 2.2, eq. 1): embeddings, augmented vector, fully connected layers, L2 norm."""

import numpy as np
import torch
from torch import Tensor, nn

from model.features import InputSpec
from model.settings.model import TowerConfig


class RecentItems(nn.Module):
    """Averages of a query's recent items' embeddings, weighted by how long ago each is, as an augmented vector's are.

    Args:
        items: How many have an embedding; row 0 is no item.
        length: L.
        alphas: Step sizes α of the averages: a place counts ``1 − α`` times as much as the one before it.
        width: E.
    """

    def __init__(self, items: int, length: int, alphas: tuple[float, ...], width: int):
        super().__init__()
        self.items = nn.Embedding(items + 1, width, padding_idx=0, sparse=True)
        nn.init.normal_(self.items.weight, std=0.1)
        nn.init.zeros_(self.items.weight[0].detach())
        self.width = len(alphas) * width
        keep = 1 - torch.tensor(alphas)[:, None]
        self.weight: Tensor
        self.register_buffer("weight", keep ** torch.arange(length), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """rows [N, L], newest first, 0 = none → [N, len(alphas) · E]; zeros where there is no item."""
        weight = self.weight * (rows > 0)[:, None, :]
        weight = weight / weight.sum(2, keepdim=True).clamp(min=1e-12)
        return (weight @ self.items(rows)).flatten(1)


class Tower(nn.Module):
    """Maps one side's inputs to its representation p on the unit sphere.

    Args:
        ids: How many ids have an embedding of their own; row 0 is shared by all others.
        spec: The side's features.
        augmented_dim: A, the width of the augmented vector (0: a plain two-tower model).
        recent: What reads a query's recent items (None: nothing does).
        relu_head: Whether eq. 1's last ReLU comes before the norm, and no linear path beside the layers.
    """

    def __init__(
        self, ids: int, spec: InputSpec, augmented_dim: int, config: TowerConfig, recent: RecentItems | None = None,
        relu_head: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.slots = [field.slots for field in spec.categories]
        width = config.embedding_dim
        self.ids = nn.Embedding(ids + 1, width, sparse=True)
        self.features = nn.Embedding(spec.codes, width, padding_idx=0, sparse=True)
        for table in (self.ids, self.features):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.features.weight[0].detach())
        self.recent = recent
        self.embedded = width * (1 + len(self.slots)) + (recent.width if recent else 0)
        sizes = [self.embedded + spec.dense_width + augmented_dim, *config.hidden, config.output_dim]
        layers: list[nn.Module] = []
        for wide, narrow in zip(sizes[:-1], sizes[1:], strict=True):
            # He's initialisation without bias: by PyTorch's default the biases drown the inputs, and all outputs are
            # alike at first.
            linear = nn.Linear(wide, narrow)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.shortcut = None
        if not relu_head:
            # What an augmented vector or an id says by itself need not be learnt through the layers.
            self.shortcut = nn.Linear(sizes[0], config.output_dim, bias=False)
            nn.init.zeros_(self.shortcut.weight)
        self.register_buffer("dense_mean", torch.zeros(spec.dense_width))
        self.register_buffer("dense_std", torch.ones(spec.dense_width))
        self.layers = nn.Sequential(*(layers if relu_head else layers[:-1]))

    def standardise(self, scale: "Scale") -> None:
        """Take over the dense inputs' scale: unscaled, a log-age drowns an embedding."""
        self.dense_mean, self.dense_std = map(torch.from_numpy, scale.mean_and_std())

    def forward(
        self,
        rows: Tensor,
        codes: Tensor,
        dense: Tensor,
        augmented: Tensor,
        recent: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """rows [N], codes [N, C], dense [N, K], augmented [N, A], recent [N, L] → p [N, output_dim], unit length.

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
        if self.recent is not None:
            parts.append(self.recent(recent))
        embedded = torch.cat(parts, dim=1)
        if scale is not None:
            embedded = embedded * scale
        z = torch.cat([embedded, (dense - self.dense_mean) / self.dense_std, augmented], dim=1)
        h = self.layers(z) if self.shortcut is None else self.layers(z) + self.shortcut(z)
        return nn.functional.normalize(h, dim=1)


class Scale:
    """Mean and standard deviation of dense inputs [N, K] that are seen a block at a time."""

    def __init__(self) -> None:
        self.size, self.sum, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, dense: np.ndarray) -> "Scale":
        wide = dense.astype(np.float64)
        self.size += len(wide)
        self.sum, self.squares = self.sum + wide.sum(0), self.squares + np.square(wide).sum(0)
        return self

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """[K] each, float32. What never changed in training has 1: divided by next to nothing it would drown all else,
        once it does change."""
        mean = self.sum / max(self.size, 1)
        std = np.sqrt(np.maximum(self.squares / max(self.size, 1) - np.square(mean), 0))
        return mean.astype(np.float32), np.where(std < 1e-3, 1, std).astype(np.float32)
