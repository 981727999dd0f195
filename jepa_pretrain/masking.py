"""Which tokens are seen and which are predicted.

A masker draws for a whole global batch at once, from one generator: two ranks that each take their rows see what one
process would have seen. All samples of a batch keep the same number of tokens, so that they stack.
"""

import math

import torch
from torch import Tensor

from jepa_pretrain.contracts import Grid, Masker, Masks, UserError


def _block_size(grid: Grid, scale: tuple[float, float], aspect: tuple[float, float], rng) -> tuple[int, int]:
    """Height and width of a block, its area and its aspect drawn independently."""
    area_draw, aspect_draw = torch.rand(2, generator=rng).tolist()
    area = (scale[0] + area_draw * (scale[1] - scale[0])) * grid.h * grid.w
    ratio = aspect[0] + aspect_draw * (aspect[1] - aspect[0])
    h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return min(max(h, 1), grid.h), min(max(w, 1), grid.w)


def _corners(count: tuple[int, ...], grid: Grid, size: tuple[int, int], rng) -> tuple[Tensor, Tensor]:
    """Top-left corners; every position inside the grid is equally likely, the last row and column included."""
    top = torch.randint(0, grid.h - size[0] + 1, count, generator=rng)
    left = torch.randint(0, grid.w - size[1] + 1, count, generator=rng)
    return top, left


def _inside(top: Tensor, left: Tensor, size: tuple[int, int], grid: Grid) -> Tensor:
    """Block corners (...) -> boolean maps (..., h, w)."""
    row = torch.arange(grid.h) - top[..., None]  # (..., h)
    column = torch.arange(grid.w) - left[..., None]  # (..., w)
    return ((row >= 0) & (row < size[0]))[..., :, None] & ((column >= 0) & (column < size[1]))[..., None, :]


def _wanted(seen: Tensor, redraw: float) -> int:
    """Size of the smallest context that is not drawn again, of boolean maps (B, h, w)."""
    sizes = seen.flatten(1).sum(1).sort().values
    return int(sizes[int(redraw * len(sizes))])


def _through_time(index: Tensor, grid: Grid) -> Tensor:
    """Token indices of one frame (..., k) -> of the same places in every frame (..., t * k)."""
    frames = torch.arange(grid.t) * (grid.h * grid.w)
    return (frames[:, None] + index[..., None, :]).flatten(-2)


class MultiBlock(Masker):
    """I-JEPA's multi-block masks (Assran et al. 2023, section 3): several target blocks, one large context block.

    The context block loses the tokens that belong to a target, and then, at random, as many as it takes for every
    context of the batch to have the size of the smallest. On a small grid that is a third of the context at a batch of
    64; with `redraw` the smallest few are drawn again instead (`docs/ijepa.md` has the sizes). On clips the blocks run
    through all frames (V-JEPA's tubes). Unlike the official code: the last row and column are drawn as often as the
    others, scale and aspect are independent, the tokens cut away are not always the bottom ones, context and targets
    never overlap, and a grid too small for the settings is an error and not an endless loop.

    Args:
        targets: number of target blocks M.
        target_scale: area of a target block as a share of the frame.
        target_aspect: height over width of a target block.
        context_scale: area of the context block as a share of the frame.
        min_keep: the fewest context tokens, per frame, that a sample may have.
        tries: how often a sample with fewer is drawn again before giving up.
        redraw: share of the batch, those with the smallest context, that is drawn again until they have more; none as
            published.
    """

    def __init__(
        self,
        targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        min_keep: int = 10,
        tries: int = 100,
        redraw: float = 0.0,
    ) -> None:
        if not 0.0 <= redraw < 1.0:
            raise UserError(f"redraw lies in [0, 1), not at {redraw}")
        self.targets, self.target_scale, self.target_aspect = targets, target_scale, target_aspect
        self.context_scale, self.min_keep, self.tries, self.redraw = context_scale, min_keep, tries, redraw

    def __call__(self, batch_size: int, grid: Grid, rng: torch.Generator) -> Masks:
        """Masks of a batch: context `(B, K)` and targets `(B, M, K')`, sorted token indices."""
        target_size = _block_size(grid, self.target_scale, self.target_aspect, rng)
        context_size = _block_size(grid, self.context_scale, (1.0, 1.0), rng)
        seen, predicted = self._draw(batch_size, grid, target_size, context_size, rng)
        keep = max(_wanted(seen, self.redraw), self.min_keep)
        for _ in range(self.tries):
            poor = seen.flatten(1).sum(1) < keep
            if not poor.any():
                return self._pack(seen, predicted, target_size, grid, rng)
            seen[poor], predicted[poor] = self._draw(int(poor.sum()), grid, target_size, context_size, rng)
        raise UserError(
            f"masks impossible: {self.targets} targets of {target_size[0]}x{target_size[1]} tokens leave fewer than "
            f"{keep} tokens of the {grid.h}x{grid.w} grid; "
            "lower targets, target_scale or min_keep, or use smaller patches"
        )

    def _draw(self, count: int, grid: Grid, target_size, context_size, rng) -> tuple[Tensor, Tensor]:
        """Boolean maps of the context (B, h, w) and of the targets (B, M, h, w)."""
        predicted = _inside(*_corners((count, self.targets), grid, target_size, rng), target_size, grid)
        block = _inside(*_corners((count,), grid, context_size, rng), context_size, grid)
        return block & ~predicted.any(dim=1), predicted

    def _pack(self, seen: Tensor, predicted: Tensor, target_size, grid: Grid, rng) -> Masks:
        """Boolean maps to indices, all contexts cut at random to the smallest."""
        seen = seen.flatten(1)  # (B, hw)
        keep = int(seen.sum(1).min())
        score = torch.rand(seen.shape, generator=rng).masked_fill(~seen, -1.0)
        context = score.topk(keep, dim=1).indices.sort(dim=1).values  # (B, K)
        size = target_size[0] * target_size[1]
        targets = predicted.flatten(2).nonzero()[:, 2].view(len(seen), self.targets, size)  # (B, M, K')
        return Masks(_through_time(context, grid), _through_time(targets, grid))


class Tubes(Masker):
    """V-JEPA's masks (Bardes et al. 2024, section 3.2): the union of some blocks is hidden in all frames.

    The context is what is left, the targets are everything else, as one joint set: every token is either seen or
    predicted. Published are two of these side by side, a *short-range* one of 8 blocks of .15 and a *long-range* one
    of 2 blocks of .7; a recipe gives them as a list.

    Contexts must agree in size over the batch. The official code cuts all to the smallest of a GPU's 24 clips and drops
    the last tokens, which are those of the last frames. Here the smallest few are drawn again, so that the size does
    not depend on the batch; the rest are cut to the smallest left by one further hole, around a random place, in all
    frames. The hole may leave the frame on one side and come back on the other, so that all places are alike.

    Args:
        blocks: blocks whose union is hidden.
        scale: area of a block as a share of the frame.
        aspect: height over width of a block.
        span: share of the clip, from its beginning, that may be seen; behind it all is predicted.
        redraw: share of the batch, those with the smallest context, that is drawn again; the default cuts contexts to
            the size that the smallest of 24 has.
        tries: how often a sample is drawn again before giving up.
    """

    def __init__(
        self,
        blocks: int = 8,
        scale: tuple[float, float] = (0.15, 0.15),
        aspect: tuple[float, float] = (0.75, 1.5),
        span: float = 1.0,
        redraw: float = 0.04,
        tries: int = 100,
    ) -> None:
        if not (0.0 < span <= 1.0 and 0.0 <= redraw < 1.0):
            raise UserError(f"span lies in (0, 1] and redraw in [0, 1), not at {span} and {redraw}")
        self.blocks, self.scale, self.aspect = blocks, scale, aspect
        self.span, self.redraw, self.tries = span, redraw, tries

    def __call__(self, batch_size: int, grid: Grid, rng: torch.Generator) -> Masks:
        """Masks of a batch: context `(B, K)` and one target `(B, 1, N - K)`, sorted token indices."""
        size = _block_size(grid, self.scale, self.aspect, rng)
        seen = self._draw(batch_size, grid, size, rng)  # (B, h, w)
        keep = max(_wanted(seen, self.redraw), 1)
        for _ in range(self.tries):
            poor = seen.flatten(1).sum(1) < keep
            if not poor.any():
                return self._pack(seen, keep, grid, rng)
            seen[poor] = self._draw(int(poor.sum()), grid, size, rng)
        raise UserError(
            f"masks impossible: {self.blocks} blocks of {size[0]}x{size[1]} tokens hide all of the {grid.h}x{grid.w} "
            "grid; lower blocks or scale, or use smaller patches"
        )

    def _draw(self, count: int, grid: Grid, size: tuple[int, int], rng) -> Tensor:
        """Boolean maps of what stays visible (B, h, w)."""
        hidden = _inside(*_corners((count, self.blocks), grid, size, rng), size, grid)  # (B, blocks, h, w)
        return ~hidden.any(dim=1)

    def _pack(self, seen: Tensor, keep: int, grid: Grid, rng) -> Masks:
        """Boolean maps to indices; the `keep` places farthest from the middle of the hole stay."""
        distance = _ring_distance(len(seen), grid, rng) + torch.rand(seen.shape, generator=rng)  # equals in any order
        places = distance.masked_fill(~seen, -1.0).flatten(1).topk(keep, dim=1).indices.sort(dim=1).values
        steps = max(1, int(grid.t * self.span))
        context = _through_time(places, grid._replace(t=steps))  # (B, K)
        hidden = torch.ones(len(seen), grid.tokens, dtype=torch.bool).scatter_(1, context, False)
        targets = hidden.nonzero()[:, 1].view(len(seen), 1, -1)  # (B, 1, N - K)
        return Masks(context, targets)


def _ring_distance(count: int, grid: Grid, rng) -> Tensor:
    """Rows or columns, whichever are more, from every place to a random one (B, h, w); opposite borders touch."""
    apart = []
    for side in (grid.h, grid.w):
        away = (torch.arange(side) - torch.randint(0, side, (count, 1), generator=rng)).abs()
        apart.append(torch.minimum(away, side - away))  # (B, side)
    return torch.maximum(apart[0][:, :, None], apart[1][:, None, :]).float()


class Random(Masker):
    """Tokens masked at random, as in MAE; the masked ones form one target.

    Args:
        ratio: share of the tokens that is predicted, in (0, 1).
    """

    def __init__(self, ratio: float = 0.75) -> None:
        if not 0.0 < ratio < 1.0:
            raise UserError(f"the masked ratio lies between 0 and 1, not at {ratio}")
        self.ratio = ratio

    def __call__(self, batch_size: int, grid: Grid, rng: torch.Generator) -> Masks:
        """Masks of a batch: context `(B, K)` and one target `(B, 1, N - K)`."""
        order = torch.rand(batch_size, grid.tokens, generator=rng).argsort(dim=1)
        keep = round(grid.tokens * (1.0 - self.ratio))
        if not 0 < keep < grid.tokens:
            raise UserError(f"masking {self.ratio:.0%} of {grid.tokens} tokens leaves {keep} to see")
        return Masks(order[:, :keep].sort(1).values, order[:, keep:].sort(1).values.unsqueeze(1))
