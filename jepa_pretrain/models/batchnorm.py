"""Batch norm with the statistics of the batch of all ranks, on CPUs as well.

Torch's own runs on accelerators alone, and its conversion drops the activation that some of timm's layers hold.
"""

import timm.layers
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jepa_pretrain import distributed


def _over_ranks(x: Tensor) -> Tensor:
    """Sum over ranks that gradients flow through."""
    return distributed.gather(x.unsqueeze(0)).sum(0)


class SyncBatchNorm(nn.SyncBatchNorm):
    """Torch's, and on a CPU the same formula spelled out. Made by `synchronise`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, ...)` -> the same shape."""
        if x.device.type != "cpu" or not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        count = distributed.total(exact.new_tensor(float(x.numel() // x.shape[1])))
        mean = _over_ranks(exact.sum(axes)) / count  # (C,)
        centred = exact - mean.view(shape)
        var = _over_ranks(centred.square().sum(axes)) / count  # (C,)
        self._remember(mean.detach(), var.detach() * count / (count - 1))
        y = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics, which hold the unbiased variance."""
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)


class SyncBatchNormAct(timm.layers.SyncBatchNormAct, SyncBatchNorm):
    """The same, for timm's batch norm that ends in an activation."""


def synchronise(module: nn.Module) -> nn.Module:
    """Give every batch norm inside the statistics of all ranks, in place; weights, buffers and names stay."""
    for part in module.modules():
        if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm):
            part.plain_class, part.process_group = type(part), None
            part.__class__ = SyncBatchNormAct if isinstance(part, timm.layers.BatchNormAct2d) else SyncBatchNorm
    return module


def separate(module: nn.Module) -> nn.Module:
    """Undo `synchronise`."""
    for part in module.modules():
        if isinstance(part, SyncBatchNorm):
            part.__class__ = part.plain_class
            del part.plain_class, part.process_group
    return module
