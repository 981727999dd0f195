"""Pictures stacked to batches: all views of a batch lie in one memory, each in the order its pictures came in."""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.contracts import UserError

LINE = 64  # bytes of a cache line; every view begins at one


class Layout(NamedTuple):
    """How the pictures of one view lie in memory."""

    shape: tuple[int, ...]  # of one picture, (C, H, W)
    last: bool  # the channels lie last in memory, as decoders leave them

    def bytes(self, count: int) -> int:
        """Room for `count` pictures, in whole lines."""
        return -(-count * prod(self.shape) // LINE) * LINE


def views_in(memory: Tensor, layouts: list[Layout], count: int, rows: int) -> list[Tensor]:
    """The views in a memory (bytes,) with room for `count` pictures of each: the first rows, (B, C, T = 1, H, W)."""
    views, start = [], 0
    for layout in layouts:
        channels, height, width = layout.shape
        order = (height, width, channels) if layout.last else layout.shape
        view = memory[start : start + count * prod(order)].view(count, *order)[:rows]
        views.append((view.movedim(-1, -3) if layout.last else view).unsqueeze(2))
        start += layout.bytes(count)
    return views


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
        """Fills the rows from `row` on: per view, some pictures (C, H, W) uint8."""
        if not self.layouts:
            self.layouts = [Layout(tuple(one.shape), one.stride(0) == 1) for one, *_ in made]
            self.memory = self.take(sum(layout.bytes(self.count) for layout in self.layouts))
            self._rows = [view.squeeze(2) for view in self.views(self.count)]
        for pictures, layout, rows in zip(made, self.layouts, self._rows, strict=True):
            for one in pictures:
                if one.shape != layout.shape:
                    sizes = f"{layout.shape} and {tuple(one.shape)}"
                    raise UserError(
                        f"a view gives pictures of different sizes, such as {sizes}: views must crop or resize"
                    )
            torch.stack(pictures, out=rows[row : row + len(pictures)])

    def views(self, rows: int) -> list[Tensor]:
        """The first rows of each view, (B, C, T = 1, H, W)."""
        return views_in(self.memory, self.layouts, self.count, rows)
