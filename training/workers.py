"""Several processes that train one model: each computes a share of every batch, and all keep the same weights.

Only the towers' work is split. Every process sees the whole batch's vectors, computes the same loss over them, and
takes the gradient through its own rows; the sum over the processes is the gradient that one process would have. Every
process folds all clicks, so that the augmented tables stay the same everywhere.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """This process's place among ``size``; the processes must have joined (:func:`join`) when there are several."""

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> slice:
        """This process's part of n consecutive rows; it may be empty."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def gather(self, own: Tensor, n: int) -> Tensor:
        """The rows of all processes, [n, …]; a gradient flows into this process's own."""
        if self.size == 1:
            return own
        place = self.share(n)
        whole = own.new_zeros(n, *own.shape[1:])
        whole[place] = own.detach()
        dist.all_reduce(whole)
        return torch.cat([whole[: place.start], own, whole[place.stop :]])

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes: the same bits in each of them."""
        if self.size == 1:
            return
        found = [parameter for parameter in parameters if parameter.grad is not None]
        dense = [parameter.grad for parameter in found if not parameter.grad.is_sparse]
        if dense:  # one message for all layers
            flat = torch.cat([grad.ravel() for grad in dense])
            dist.all_reduce(flat)
            for grad, summed in zip(dense, flat.split([grad.numel() for grad in dense]), strict=True):
                grad.copy_(summed.view_as(grad))
        for parameter in found:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                dist.all_reduce(parameter.grad)


ALONE = Workers()


def join(timeout_s: float = 300) -> Workers:
    """Join the processes that ``torchrun``, or Spark's TorchDistributor, has started beside this one."""
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=timeout_s))
    return Workers(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    dist.destroy_process_group()
