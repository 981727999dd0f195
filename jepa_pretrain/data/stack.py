"""Clips stacked to batches: all views of a batch lie in one memory, each in the order its clips came in."""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.contracts import UserError

LINE = 64  # bytes of a cache line; every view begins at one


class Layout(NamedTuple):
    """How the clips of one view lie in memory: (T, H, W, C) if the channels lie last, else (C, T, H, W)."""

    shape: tuple[int, ...]  # of one clip, (T, C, H, W)
    last: bool  # the channels lie last in memory, as decoders leave them

    @property
    def order(self) -> tuple[int, ...]:
        """The shape of a clip in memory."""
        frames, channels, height, width = self.shape
        return (frames, height, width, channels) if self.last else (channels, frames, height, width)

    def stored(self, clip: Tensor) -> Tensor:
        """A clip (T, C, H, W) with its dimensions as they lie in memory."""
        return clip.movedim(-3, -1) if self.last else clip.transpose(0, 1)

    def bytes(self, count: int) -> int:
        """Room for `count` clips, in whole lines."""
        return -(-count * prod(self.shape) // LINE) * LINE


def views_in(memory: Tensor, layouts: list[Layout], count: int, rows: int) -> list[Tensor]:
    """The views in a memory (bytes,) with room for `count` clips of each: the first rows, (B, C, T, H, W)."""
    parts = zip(layouts, _parts(memory, layouts, count), strict=True)
    return [(part[:rows].movedim(-1, 1) if layout.last else part[:rows]) for layout, part in parts]


def _parts(memory: Tensor, layouts: list[Layout], count: int) -> list[Tensor]:
    """Per view, room for `count` clips in the order of memory, (B, ...)."""
    parts, start = [], 0
    for layout in layouts:
        parts.append(memory[start : start + count * prod(layout.shape)].view(count, *layout.order))
        start += layout.bytes(count)
    return parts


def plain_memory(size: int) -> Tensor:
    """Memory of this process: (size,) uint8."""
    return torch.empty(size, dtype=torch.uint8)


class Stack:
    """The views of a batch in the making.

    Args:
        count: Number of rows.
        take: Gives memory of so many bytes, once the size of the views is known.
    """

    def __init__(self, count: int, take: Callable[[int], Tensor]):
        self.count, self.take = count, take
        self.layouts: list[Layout] = []

    def put(self, row: int, made: list[list[Tensor]]) -> None:
        """Fills the rows from `row` on: per view, some clips (T, C, H, W) uint8."""
        if not self.layouts:
            self.layouts = [Layout(tuple(one.shape), one.stride(1) == 1) for one, *_ in made]
            self.memory = self.take(sum(layout.bytes(self.count) for layout in self.layouts))
            self._rows = _parts(self.memory, self.layouts, self.count)
        for clips, layout, rows in zip(made, self.layouts, self._rows, strict=True):
            for one in clips:
                if one.shape != layout.shape:
                    sizes = f"{layout.shape} and {tuple(one.shape)}"
                    raise UserError(
                        f"a view gives clips of different sizes, such as {sizes}: views must crop or resize"
                    )
            torch.stack([layout.stored(one) for one in clips], out=rows[row : row + len(clips)])

    def views(self, rows: int) -> list[Tensor]:
        """The first rows of each view, (B, C, T, H, W)."""
        return views_in(self.memory, self.layouts, self.count, rows)
