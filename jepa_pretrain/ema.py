"""A gradient-free copy that follows a module."""

import copy

import torch
from torch import nn


class EMA(nn.Module):
    """Exponential moving average of a module's weights.

    The copy never sees gradients and is always in evaluation mode. `update` is called by the method, once per
    optimiser step.

    Args:
        source: the module to copy and to follow.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(source).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EMA":
        return super().train(False)

    @torch.no_grad()
    def update(self, source: nn.Module, momentum: float) -> None:
        """Move the copy: weights <- momentum * weights + (1 - momentum) * source; buffers are copied."""
        ours, theirs = list(self.module.parameters()), list(source.parameters())
        torch._foreach_lerp_(ours, [p.detach() for p in theirs], 1.0 - momentum)
        for mine, other in zip(self.module.buffers(), source.buffers(), strict=True):
            mine.copy_(other)

    @torch.no_grad()
    def forward(self, *args):
        return self.module(*args)
