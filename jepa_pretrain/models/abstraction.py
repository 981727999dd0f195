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
        depth: transformer blocks over the tokens of the window; needed where it is longer than 1.
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
        if window > 1 and not depth:
            raise UserError("a window of more than one moment needs depth: attention is what reads it")
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
        self.moment = nn.Parameter(torch.zeros(window, 1, below))  # how long ago
        self.blocks = blocks(depth, below, heads)
        hidden, read = hidden or 2 * width, below * grid_below[0] * grid_below[1] if join else below
        if batch_norm:
            self.head = Projector(read, (hidden,), width)
        else:
            self.head = nn.Sequential(nn.LayerNorm(read), nn.Linear(read, hidden), nn.GELU(), nn.Linear(hidden, width))
        init_weights(self.blocks, self.blocks)
        nn.init.trunc_normal_(self.moment, std=0.02)

    def forward(self, windows: Tensor) -> Tensor:
        """`(B, L, window, N, D below)` -> `(B, L, N', D)`."""
        batch, length, _, tokens, _ = windows.shape
        x = (windows + self.moment).flatten(0, 1).flatten(1, 2)  # (B L, window N, D below)
        for block in self.blocks:
            x = block(x)
        x = x[:, -tokens:]  # of the state's own moment
        if self.join:
            x = x.flatten(1).unsqueeze(1)  # (B L, 1, N D below)
        elif self.grid != self.grid_below:
            x = F.adaptive_avg_pool2d(x.mT.unflatten(2, self.grid_below), self.grid).flatten(2).mT
        return self.head(x.flatten(0, 1)).unflatten(0, (batch, length, -1))


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
