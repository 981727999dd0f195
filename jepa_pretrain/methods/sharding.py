"""FSDP2: every rank keeps its share of the weights, gradients and optimiser state, and gathers a block when it runs."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from jepa_pretrain.ema import EMA


@torch.no_grad()
def shard(method: nn.Module, mesh: DeviceMesh) -> None:
    """Split the parts of a method over ranks, in place, after giving all of them rank 0's weights.

    Each child is split by itself, since children are what a method calls; inside it, each entry of a module list (the
    blocks of a transformer) is gathered alone, the rest together. An EMA's copy is split like its source, so that the
    update stays local.

    Args:
        method: the method; its parts are on the CPU or on the rank's device.
        mesh: one with a dimension `data_parallel`, which holds all ranks.
    """
    device = torch.device(mesh.device_type)
    data_parallel = mesh["data_parallel"]
    for child in method.children():
        part = child.module if isinstance(child, EMA) else child
        if not any(True for _ in part.parameters()):
            continue
        part.to(device, memory_format=torch.contiguous_format)  # FSDP2 knows no other
        for tensor in (*part.parameters(), *part.buffers()):
            dist.broadcast(tensor, 0)
        for stack in [m for m in part.modules() if isinstance(m, nn.ModuleList)]:
            for block in stack:
                fully_shard(block, mesh=data_parallel)
        # give the weights back after every forward: a target and a validation have no backward that would
        fully_shard(part, mesh=data_parallel, reshard_after_forward=True)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class a module was made from; torch derives another one when it splits the module."""
    return next(c for c in type(module).__mro__ if not issubclass(c, FSDPModule))


@torch.no_grad()
def whole_weights(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module with nothing split, on every rank; all ranks must ask together."""
    state = module.state_dict()
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}
