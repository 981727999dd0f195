"""Masks drawn on pictures: what the context encoder sees is bright, every target block is outlined in a colour."""

import torch
from torch import Tensor

from jepa_pretrain.contracts import Grid, Masks
from jepa_pretrain.report.tiles import enlarge

COLOURS = torch.tensor(
    [[236, 72, 153], [250, 204, 21], [34, 211, 238], [163, 230, 53], [251, 146, 60], [192, 132, 252]]
)
DIM = 0.22
GAP = 6  # pixels between frames


def draw(images: Tensor, masks: Masks, grid: Grid) -> list[Tensor]:
    """One tile for each picture.

    Args:
        images: `(B, 3, H, H)` uint8.
        masks: One row for each picture.
        grid: The token grid; its first frame is drawn.

    Returns:
        B pictures `(3, h, h)` uint8.
    """
    tiles = []
    for image, context, targets in zip(images, masks.context, masks.targets, strict=True):
        tile = enlarge(image).float()
        seen = _map(context, grid)  # (h, w)
        bright = _grow(seen, tile.shape[-1])
        tile = torch.where(bright, tile, tile * DIM)
        for number, target in enumerate(targets):
            tile = _outline(tile, _grow(_map(target, grid), tile.shape[-1]), COLOURS[number % len(COLOURS)])
        tiles.append(tile.to(torch.uint8))
    return tiles


def film(clip: Tensor, masks: list[Masks], grid: Grid) -> Tensor:
    """A clip on top, one frame to a step of the grid, and below it what each of the masks leaves to be seen.

    Args:
        clip: `(3, T, H, H)` uint8.
        masks: Of each its first row is drawn.
        grid: The token grid.

    Returns:
        One picture `(3, (1 + masks) * h, t * h)` uint8, a gap of white between the rows and the frames.
    """
    frames = [enlarge(clip[:, step * clip.shape[1] // grid.t]) for step in range(grid.t)]
    rows = [frames]
    for one in masks:
        seen = torch.zeros(grid.tokens, dtype=torch.bool).index_fill(0, one.context[0], True).view(grid)
        bright = [_grow(area, frame.shape[-1]) for area, frame in zip(seen, frames, strict=True)]
        rows.append(
            [torch.where(b, frame, (frame * DIM).to(torch.uint8)) for b, frame in zip(bright, frames, strict=True)]
        )
    gap = torch.nn.functional.pad
    lines = [torch.cat([gap(tile, (0, GAP, 0, GAP), value=255) for tile in row], dim=2) for row in rows]
    return torch.cat(lines, dim=1)[:, :-GAP, :-GAP]


def _map(index: Tensor, grid: Grid) -> Tensor:
    """Token indices -> boolean map `(h, w)` of the first frame."""
    flat = torch.zeros(grid.tokens, dtype=torch.bool)
    flat[index] = True
    return flat[: grid.h * grid.w].view(grid.h, grid.w)


def _grow(area: Tensor, side: int) -> Tensor:
    """Boolean map of tokens -> boolean map of pixels `(side, side)`."""
    row = torch.arange(side) * area.shape[0] // side
    column = torch.arange(side) * area.shape[1] // side
    return area[row][:, column]


def _outline(tile: Tensor, area: Tensor, colour: Tensor, width: int = 2) -> Tensor:
    """Colour the pixels of an area that lie within `width` of its border, the picture's border included."""
    outside = torch.nn.functional.pad(~area, (1,) * 4, value=True)[None, None].float()
    near = torch.nn.functional.max_pool2d(outside, 2 * width + 1, 1, width)[0, 0, 1:-1, 1:-1] > 0
    return torch.where(near & area, colour[:, None, None].float(), tile)
