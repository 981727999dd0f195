"""Batch norm with the statistics of the batch of all ranks, where torch has none: on CPUs, which tests run on."""

import timm.layers
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jepa_pretrain import distributed
from jepa_pretrain.ops import exact


def _over_ranks(x: Tensor) -> Tensor:
    """Sum over ranks that gradients flow through."""
    return distributed.gather(x.unsqueeze(0)).sum(0)


class JointBatchNorm(_BatchNorm):
    """The formula spelled out. Made by `synchronise`; behaves as a plain one in evaluation."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of axes after the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, ...)` -> the same shape."""
        if not self.training:
            return super().forward(x)
        axes, shape = [axis for axis in range(x.ndim) if axis != 1], [1, -1] + [1] * (x.ndim - 2)
        wide = exact(x)
        count = distributed.total(wide.new_tensor(float(x.numel() // x.shape[1])))
        mean = _over_ranks(wide.sum(axes)) / count  # (C,)
        centred = wide - mean.view(shape)
        var = _over_ranks(centred.square().sum(axes)) / count  # (C,)
        if self.track_running_stats:
            self._remember(mean, var * count / (count - 1))
        y = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics, which hold the unbiased variance."""
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)


class JointBatchNormAct(JointBatchNorm):
    """The same for timm's batch norm that ends in an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def synchronise(module: nn.Module, device: str) -> nn.Module:
    """Give every batch norm inside the statistics of all ranks, in place; weights, buffers and names stay.

    Args:
        module: holds the batch norms; none itself.
        device: type of the device it will run on. On accelerators torch's own layers are taken.
    """
    if device != "cpu":
        return timm.layers.convert_sync_batchnorm(module)  # torch's conversion would drop timm's activations
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.__class__ = JointBatchNormAct if isinstance(part, timm.layers.BatchNormAct2d) else JointBatchNorm
    return module
