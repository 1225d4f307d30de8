"""Which candidates are no negatives of a query, since it has clicked them."""

import numpy as np
import torch

from model.folds import QueryFold

Array = np.ndarray
Cells = tuple[torch.Tensor, torch.Tensor]
"""Rows, ascending, and columns of a table of clicks by candidates."""


class SeenMask:
    """What the queries of a block of N clicks have clicked.

    Where answers leave out what a query has clicked, that is what their recent items hold before the block, as in an
    answer, and the block's clicks until then. Where they do not, it is the clicks of the same batch alone.

    Args:
        excludes_seen: Whether answers leave out what a query has clicked.
    """

    def __init__(self, fold: QueryFold, excludes_seen: bool):
        self.key, self.items, self.rings, self.excludes_seen = (
            fold.groups.key,
            fold.item_rows,
            fold.rings,
            excludes_seen,
        )

    def of(self, rows: slice, candidates: Array) -> Cells:
        """The candidates that the query of each of B clicks has clicked before, or in this batch.

        Args:
            rows: The batch's places in the block. candidates: [U] sorted item rows.
        """
        keys, row = np.unique(self.key[rows], return_inverse=True)
        owner, items, width = row, self.items[rows], max(len(candidates), 1)
        if self.excludes_seen:
            key, clicked = self.key[: rows.start], self.items[: rows.start]
            place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            here = keys[place] == key
            of, slot = np.nonzero(self.rings[keys] >= 0)
            owner = np.concatenate([owner, place[here], of])
            items = np.concatenate([items, clicked[here], self.rings[keys[of], slot]])
        place = np.searchsorted(candidates, items)
        hit = np.append(candidates, -1)[place] == items
        cells = np.unique(owner[hit] * width + place[hit])
        counts = np.bincount(cells // width, minlength=len(keys))
        starts, sizes = (np.cumsum(counts) - counts)[row], counts[row]
        of = np.repeat(np.arange(len(row)), sizes)
        at = np.arange(len(of)) + np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
        return torch.from_numpy(of), torch.from_numpy(cells[at] % width)
