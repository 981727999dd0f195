"""Collectives that gradients flow through.

Under DDP every rank computes the same loss on the gathered batch, and DDP averages the gradients over ranks. For that
average to equal the gradient of one process on the joined batch, the backward pass of a gather must *sum* what all
ranks send back: each of the W ranks then carries W times its share, and the average is exact. Without a process group
all functions are the identity.
"""

from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes, asked at call time."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.chunk(world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """Join the rows of all ranks, in rank order: `(B, ...)` -> `(W B, ...)`, differentiable; B is the same on all."""
    return x if world_size() == 1 else _Gather.apply(x)


@torch.no_grad()
def total(x: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x


def gather_objects(x: object) -> list:
    """The same thing of every rank, in rank order; for what is small and rare."""
    parts = [x] * world_size()
    if world_size() > 1:
        dist.all_gather_object(parts, x)
    return parts


def mean(x: Tensor) -> Tensor:
    """Average over ranks, without gradient."""
    return total(x) / world_size()


@lru_cache(maxsize=1)
def _hosts(world: object) -> "dist.ProcessGroup":
    """A group over the processors, whatever the tensors' own is: asking there does not wait for an accelerator."""
    return dist.new_group(backend="gloo")


def largest(number: int) -> int:
    """The largest of the ranks' numbers; all ranks have to ask."""
    if world_size() == 1:
        return number
    box = torch.tensor(number)
    dist.all_reduce(box, op=dist.ReduceOp.MAX, group=_hosts(dist.group.WORLD))
    return int(box)


@torch.no_grad()
def first(x: Tensor) -> Tensor:
    """What rank 0 has, on every rank; for random numbers that all have to share."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.broadcast(x, src=0)
    return x
