"""What a level of a hierarchy does to the level below: its states become fewer and coarser, its actions macro-actions.

A macro-action is a short code of what happened between two moments of the upper level (Zhang et al. 2026,
arXiv 2610.06805: width 4): of the lower actions, or, where nothing acts, of the states passed through.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.models.vit import blocks, init_weights


class StateEncoder(nn.Module):
    """Makes one state from a window of the states (or frame tokens) below.

    Args:
        below: width of the tokens below.
        width: width D of this level's states.
        grid_below: rows and columns of the tokens below.
        grid: rows and columns of this level's states; fewer are averages, (1, 1) is a pooled state; None keeps them.
        window: moments below that a state reads: its own and those before it.
        depth: transformer blocks over the tokens of the window. With 0 every moment of a longer window is encoded by
            itself, and a linear map makes the state of their codes: how things move is then a difference of codes,
            which blocks took much longer to find (`docs/hjepa.md`).
        heads: attention heads.
        hidden: hidden width of the head, twice `width` by default.
        batch_norm: batch norm in the head instead of layer norm, as published; then samples mix in training.
        join: make a pooled state of all tokens side by side instead of their average, in which a small ball in one of
            16 tokens weighs a sixteenth.
    """

    def __init__(
        self,
        below: int,
        width: int,
        grid_below: tuple[int, int] = (1, 1),
        grid: tuple[int, int] | None = (1, 1),
        window: int = 1,
        depth: int = 0,
        heads: int = 4,
        hidden: int | None = None,
        batch_norm: bool = False,
        join: bool = False,
    ) -> None:
        super().__init__()
        grid = tuple(grid or grid_below)
        if grid[0] > grid_below[0] or grid[1] > grid_below[1]:
            raise UserError(f"an abstraction has no more tokens than what it abstracts: {grid} from {grid_below}")
        if join and grid != (1, 1):
            raise UserError(f"tokens are joined to one state, a grid of (1, 1), not {grid}")
        self.config = dict(
            below=below, width=width, grid_below=list(grid_below), grid=list(grid), window=window, depth=depth,
            heads=heads, hidden=hidden, batch_norm=batch_norm, join=join,
        )  # fmt: skip
        self.below, self.width, self.window, self.join = below, width, window, join
        self.grid_below, self.grid = tuple(grid_below), grid
        apart = window > 1 and not depth  # every moment of the window by itself
        self.moment = None if apart else nn.Parameter(torch.zeros(window, 1, below))  # how long ago
        self.blocks = blocks(depth, below, heads)
        hidden, read = hidden or 2 * width, below * grid_below[0] * grid_below[1] if join else below
        if batch_norm:
            self.head = Projector(read, (hidden,), width)
        else:
            self.head = nn.Sequential(nn.LayerNorm(read), nn.Linear(read, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.fuse = nn.Linear(window * width, width) if apart else None
        init_weights(self.blocks, self.blocks)
        if self.moment is not None:
            nn.init.trunc_normal_(self.moment, std=0.02)

    def forward(self, windows: Tensor) -> Tensor:
        """`(B, L, window, N, D below)` -> `(B, L, N', D)`."""
        batch, length, _, tokens, _ = windows.shape
        if self.fuse is not None:
            codes = self._code(windows.flatten(0, 2)).unflatten(0, (batch, length, -1))  # (B, L, window, N', D)
            return self.fuse(codes.transpose(2, 3).flatten(3))
        x = (windows + self.moment).flatten(0, 1).flatten(1, 2)  # (B L, window N, D below)
        for block in self.blocks:
            x = block(x)
        return self._code(x[:, -tokens:]).unflatten(0, (batch, length))  # of the state's own moment

    def _code(self, x: Tensor) -> Tensor:
        """Tokens of one moment `(B, N, D below)` -> `(B, N', D)`, fewer or joined."""
        if self.join:
            x = x.flatten(1).unsqueeze(1)  # (B, 1, N D below)
        elif self.grid != self.grid_below:
            x = F.adaptive_avg_pool2d(x.mT.unflatten(2, self.grid_below), self.grid).flatten(2).mT
        return self.head(x.flatten(0, 1)).unflatten(0, (len(x), -1))


class MacroActions(nn.Module):
    """Encodes what happens between two moments of a level into a few numbers.

    Args:
        inputs: width of the actions below, or of the states below.
        width: width of the macro-action; small, so that it cannot say everything.
        of_states: read the states below, both ends included, instead of the actions below; for worlds without actions.
        length: steps below that one reads: the level's stride, one more with `of_states`.
        hidden: inner width.
        depth: transformer blocks over the steps.
        heads: attention heads.
        noise: deviation of the noise added in training, which bounds what the numbers can say.
    """

    def __init__(
        self,
        inputs: int,
        length: int,
        width: int = 4,
        of_states: bool = False,
        hidden: int = 64,
        depth: int = 1,
        heads: int = 4,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = dict(
            inputs=inputs, length=length, width=width, of_states=of_states, hidden=hidden, depth=depth, heads=heads,
            noise=noise,
        )  # fmt: skip
        self.inputs, self.length, self.width, self.of_states, self.noise = inputs, length, width, of_states, noise
        self.embed = nn.Linear(inputs, hidden)
        self.step = nn.Parameter(torch.zeros(length, hidden))
        self.blocks = blocks(depth, hidden, heads)
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width))
        init_weights(self.blocks, self.blocks)
        nn.init.normal_(self.step, std=0.1)

    def forward(self, steps: Tensor) -> Tensor:
        """`(B, L, length, inputs)` -> `(B, L, width)`."""
        x = (self.embed(steps) + self.step).flatten(0, 1)  # (B L, length, hidden)
        for block in self.blocks:
            x = block(x)
        macro = self.head(x.mean(1)).unflatten(0, steps.shape[:2])
        return macro + self.noise * torch.randn_like(macro) if self.training and self.noise else macro
