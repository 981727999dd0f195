"""What a checkpoint of somebody else's holds, under our names: encoder, trained encoder, predictor, projector."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.architectures import HEADS, KNOWN, build
from jepa_pretrain.interop.weights import fill, shapes

Weights = dict[str, Tensor]


class Part(NamedTuple):
    """One module of a checkpoint."""

    architecture: dict[str, Any]  # as `architectures.describe` writes it
    weights: Weights  # under our names

    def make(self, source: str) -> nn.Module:
        """The module with its weights; `source` is named where they do not fit."""
        module = build(self.architecture, shapes(self.weights), source, among=(*KNOWN, *HEADS))
        fill(module, self.weights, source)
        return module


class Parts(NamedTuple):
    """All that a checkpoint holds. Where it has two encoders, `encoder` is the target, the one that is handed over."""

    origin: str  # such as "I-JEPA (Meta)"
    encoder: Part
    online: Part | None = None  # the encoder that was trained, where the target is another
    predictor: Part | None = None
    projector: Part | None = None
    dynamics: Part | None = None  # an action-conditioned predictor
    notes: tuple[str, ...] = ()  # what was left out or taken for granted, for the provenance


def layers(weights: Weights, stack: str) -> int:
    """Number of the modules `stack.0`, `stack.1`, ... that have weights."""
    numbers = [name.removeprefix(stack + ".").split(".")[0] for name in weights if name.startswith(stack + ".")]
    return max((int(one) for one in numbers if one.isdecimal() and len(one) < 7), default=-1) + 1


def ratio(hidden: int, width: int) -> float:
    """The `mlp_ratio` that gives just this hidden width again when it is multiplied and cut off."""
    exact = hidden / width
    return exact if int(width * exact) == hidden else (hidden + 0.5) / width


def side(tokens: int, source: str, name: str) -> int:
    """Rows of a square grid of so many tokens."""
    rows = round(tokens**0.5)
    if rows * rows != tokens:
        raise UserError(f"{source}: {name} has {tokens} positions, which is no square; the file may be of another kind")
    return rows


def resize_positions(table: Tensor, old: Grid, new: Grid, prefix: int = 0, antialias: bool = False) -> Tensor:
    """Positions of one grid interpolated to another: bicubic in the picture, for clips trilinear.

    Args:
        table: `(1, prefix + N, D)`.
        old: the grid that it is of.
        new: the grid that is wanted.
        prefix: tokens before the grid's (class and register tokens), whose positions stay as they are.
        antialias: pictures' positions by torch's antialiased bicubic, which has another kernel.

    Returns:
        `(1, prefix + N', D)`.
    """
    if old == new:
        return table
    first, rest = table[:, :prefix], table[:, prefix:]
    maps = rest.reshape(1, *old, -1).permute(0, 4, 1, 2, 3)  # (1, D, t, h, w)
    if old.t == new.t == 1:
        size = new.h, new.w
        maps = F.interpolate(maps[:, :, 0], size=size, mode="bicubic", align_corners=False, antialias=antialias)
        maps = maps.unsqueeze(2)
    else:
        maps = F.interpolate(maps, size=tuple(new), mode="trilinear", align_corners=False)
    return torch.cat([first, maps.permute(0, 2, 3, 4, 1).flatten(1, 3)], dim=1)
