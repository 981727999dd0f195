"""Token features as colours: the first three principal components, shared by all pictures, as red, green and blue."""

import torch
from torch import Tensor

from jepa_pretrain.contracts import Grid
from jepa_pretrain.report.tiles import SIDE

SPREAD = (0.02, 0.98)  # quantiles that become dark and bright


def colours(tokens: Tensor, grid: Grid) -> Tensor:
    """Pictures of features; equal colours mean similar features, in one picture and between pictures.

    Args:
        tokens: `(B, N, D)`.
        grid: Their grid; the first frame is shown.

    Returns:
        `(B, 3, h, w)` uint8.
    """
    flat = tokens[:, : grid.h * grid.w].flatten(0, 1).float()  # (B * h * w, D)
    flat = flat - flat.mean(dim=0)
    direction = torch.linalg.svd(flat, full_matrices=False).Vh[:3]  # (3, D)
    largest = direction.gather(1, direction.abs().argmax(dim=1, keepdim=True))
    shade = flat @ (direction * largest.sign()).T  # (B * h * w, 3); the sign of a component is otherwise arbitrary
    shade = torch.nn.functional.pad(shade, (0, 3 - shade.shape[1]))
    low, high = torch.quantile(shade, torch.tensor(SPREAD), dim=0)
    shade = ((shade - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return (255 * shade).round().to(torch.uint8).view(len(tokens), grid.h, grid.w, 3).permute(0, 3, 1, 2)


def tile(map_: Tensor, side: int = SIDE) -> Tensor:
    """A feature picture at the size of a tile: each token a square of pixels, `(3, h, w)` -> `(3, side, side)`."""
    row = torch.arange(side) * map_.shape[1] // side
    column = torch.arange(side) * map_.shape[2] // side
    return map_[:, row][:, :, column]
