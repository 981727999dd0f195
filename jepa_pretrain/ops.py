"""Stateless tensor functions on tokens and positions."""

import math

import torch
from torch import Tensor

from jepa_pretrain.contracts import Grid


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by index.

    Args:
        tokens: `(B, N, D)`.
        index: `(B, ...)` int64 token indices, below N.

    Returns:
        `(B, ..., D)`.
    """
    flat = index.flatten(1)  # (B, K)
    picked = tokens.gather(1, flat.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))  # (B, K, D)
    return picked.unflatten(1, index.shape[1:])


def pool(tokens: Tensor) -> Tensor:
    """Average the tokens: `(B, N, D)` -> `(B, D)`."""
    return tokens.mean(dim=1)


def exact(x: Tensor) -> Tensor:
    """In fp32 at least, whatever the autocast: half precision is widened, double stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sincos(width: int, position: Tensor) -> Tensor:
    """Sine and cosine features of one coordinate, (N,) -> (N, width); Vaswani et al. 2017, section 3.5."""
    frequency = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = position.double()[:, None] * frequency  # (N, width / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sincos_3d(width: int, grid: Grid) -> Tensor:
    """Fixed sine-cosine position features of a token grid.

    The width is shared by the axes that the grid has: column and row for images (in this order, as in MAE and
    I-JEPA), time, row and column for clips (in this order, as in V-JEPA). Where it does not divide evenly, the last
    features of the last axis are cut off.

    Args:
        width: features per token D, even.
        grid: the token grid.

    Returns:
        `(N, D)` float32.
    """
    t, h, w = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    axes = [t, h, w] if grid.t > 1 else [w, h]
    share = math.ceil(width / (2 * len(axes))) * 2  # even, per axis
    return torch.cat([_sincos(share, axis.flatten()) for axis in axes], dim=1)[:, :width].float()
