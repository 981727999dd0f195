"""Collectives that gradients flow through.

Under DDP every rank computes the same loss on the gathered batch, and DDP averages the gradients over ranks. For that
average to equal the gradient of one process on the joined batch, the backward pass of a gather must *sum* what all
ranks send back: each of the W ranks then carries W times its share, and the average is exact. torch's functional
`all_gather` does just that. Without a process group all functions are the identity.
"""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor


def world_size() -> int:
    """Number of processes, asked at call time."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """Join the rows of all ranks, in rank order: `(B, ...)` -> `(W B, ...)`, differentiable."""
    if world_size() == 1:
        return x
    return torch.cat(dist_nn.all_gather(x.contiguous()), dim=0)


@torch.no_grad()
def mean(x: Tensor) -> Tensor:
    """Average over ranks, without gradient."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world_size()


@torch.no_grad()
def total(x: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    if world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x
