"""Token features as colours: the first three principal components, shared by all pictures, as red, green and blue."""

import torch
from torch import Tensor

from jepa_pretrain.contracts import Grid
from jepa_pretrain.report.tiles import SIDE

SPREAD = (0.02, 0.98)  # quantiles that become dark and bright
MOST = 1_000_000


def colours(tokens: Tensor, grid: Grid) -> Tensor:
    """Pictures of features; equal colours mean similar features, in one picture and between pictures.

    Args:
        tokens: `(B, N, D)`.
        grid: Their grid.

    Returns:
        `(B, 3, h, t * w)` uint8, the steps of a clip side by side.
    """
    flat = tokens.flatten(0, 1).float()  # (B * t * h * w, D)
    flat = flat - flat.mean(dim=0)
    direction = torch.linalg.svd(flat, full_matrices=False).Vh[:3]  # (3, D)
    largest = direction.gather(1, direction.abs().argmax(dim=1, keepdim=True))
    shade = flat @ (direction * largest.sign()).T  # (B * t * h * w, 3); the sign of a component is otherwise arbitrary
    shade = torch.nn.functional.pad(shade, (0, 3 - shade.shape[1]))
    some = shade[:: max(len(shade) // MOST, 1)]  # as many as a quantile can be taken of
    low, high = torch.quantile(some, torch.tensor(SPREAD), dim=0)
    shade = ((shade - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    shade = (255 * shade).round().to(torch.uint8).view(len(tokens), *grid, 3)
    return shade.permute(0, 4, 2, 1, 3).flatten(3)


def tile(map_: Tensor, side: int = SIDE) -> Tensor:
    """A feature picture at the size of tiles: each token some pixels, `(3, h, t * w)` -> `(3, side, t * side)`."""
    wide = side * map_.shape[2] // map_.shape[1]
    row = torch.arange(side) * map_.shape[1] // side
    column = torch.arange(wide) * map_.shape[2] // wide
    return map_[:, row][:, :, column]
