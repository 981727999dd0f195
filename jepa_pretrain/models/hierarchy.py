"""H-JEPA: a stack of JEPAs that predict further the higher they are (LeCun 2022, section 4.6).

Level 1 encodes frames; every other level encodes the states of the one below, takes longer steps and is told less of
what happens in them. The pieces: `level.Level`, `abstraction`, `temporal`, `latent`; which frames are read: `reading`.
"""

import copy
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Encoder, Grid, UserError
from jepa_pretrain.models.described import described
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.normalise import Normalise
from jepa_pretrain.models.reading import Reading, all_moments, plan
from jepa_pretrain.models.world import World


class Moments(NamedTuple):
    """What one level is trained on, or predicts from: states and the actions between them."""

    states: Tensor  # (B, L, N, D)
    actions: Tensor | None  # (B, L - 1, A)


class Hierarchy(nn.Module):
    """Levels on an encoder of frames; as an `Encoder` it gives the states of one of them.

    Args:
        encoder: encoder of a frame, or of a tubelet: its token grid has one step in time.
        levels: the levels, lowest first.
        frames: frames of a clip, for the token grid; other lengths work too.
        tubelet: frames that the encoder takes at once.
        reads: the level whose states `forward` gives, from 1; 0 for the tokens of the encoder.
    """

    def __init__(
        self, encoder: Encoder, levels: list[Level], frames: int = 8, tubelet: int = 1, reads: int = 1
    ) -> None:
        super().__init__()
        self.encoder, self.levels = encoder, nn.ModuleList(levels)
        self.frames, self.tubelet = frames, tubelet
        self.image_size = encoder.image_size
        self._check()
        self._read(reads)

    def _check(self) -> None:
        if not len(self.levels):
            raise UserError("a hierarchy has one level or more")
        if self.encoder.grid.t != 1 or self.frames % self.tubelet:
            raise UserError(
                f"the encoder of a hierarchy takes one moment, of {self.tubelet} of the {self.frames} frames: "
                f"its token grid is {tuple(self.encoder.grid)}"
            )
        width, grid, actions = self.encoder.width, tuple(self.encoder.grid[1:]), None
        for number, level in enumerate(self.levels, start=1):
            taken = (level.encoder.below, level.encoder.grid_below) if level.encoder else (level.width, level.grid)
            if taken != (width, grid):
                raise UserError(f"level {number} takes states {taken}, below it they are {(width, grid)}")
            inputs = None
            if level.macro:
                inputs = width if level.reads_states else actions
            elif actions is not None and level.actions:
                inputs = actions
            found = level.macro.inputs if level.macro else level.actions // level.stride
            if inputs is not None and found != inputs:
                raise UserError(f"the actions of level {number} are made of inputs {found} wide, below are {inputs}")
            if number == 1 and level.reads_states:
                raise UserError("level 1 has no states below of which to make macro-actions: give it z instead")
            width, grid, actions = level.width, level.grid, level.actions

    def _read(self, reads: int) -> None:
        if not 0 <= reads <= len(self.levels):
            raise UserError(f"this hierarchy has levels 1 to {len(self.levels)}, and 0 for its encoder: not {reads}")
        moments = self.frames // self.tubelet
        for level in self.levels[:reads]:
            moments = (moments - 1) // level.stride + 1
        source = self.levels[reads - 1] if reads else self.encoder
        self.reads, self.width = reads, source.width
        self.grid = Grid(moments, *(source.grid if reads else source.grid[1:]))
        self.config = dict(
            encoder=described(self.encoder), levels=[described(level) for level in self.levels],
            frames=self.frames, tubelet=self.tubelet, reads=reads,
        )  # fmt: skip

    def at(self, level: int) -> Self:
        """The same modules, read at another level (0: the encoder's tokens)."""
        other = copy.copy(self)
        other._read(level)
        return other

    @property
    def glances(self) -> int:
        """Pictures that the observation of a moment joins."""
        return self.encoder.frames if isinstance(self.encoder, World) else 1

    @property
    def normalise(self) -> Normalise:
        """The pixel constants, which are the encoder's."""
        return self.encoder.normalise

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """States of all moments at level `reads`: `(B, C, T, H, W)` -> `(B, L N, D)`; it cannot drop tokens."""
        if keep is not None:
            raise UserError("a hierarchy cannot drop tokens")
        return self.sequence(clip).flatten(1, 2)

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """States of `layers` levels (or as many as there are) up to `reads`, lowest first, each `(B, L_i N_i, D_i)`."""
        first = max(self.reads - layers + 1, 0)  # 0 is the encoder's
        return [self.at(level)(clip) for level in range(first, self.reads + 1)]

    def sequence(self, clip: Tensor) -> Tensor:
        """States of all moments at level `reads`, `(B, L, N, D)`, from the frames that they read."""
        levels = list(self.levels[: self.reads])
        moments = self._moments_of(clip)
        readings = all_moments(levels, moments)
        have = readings[0].below if readings else list(range(moments))
        states = self._tokens(clip, have)
        for level, reading in zip(levels, readings, strict=True):
            states = level.states(states, reading.below, reading.moments)
        return states

    def moments(
        self, clip: Tensor, actions: Tensor | None = None, levels: int | None = None, detach: bool = False
    ) -> list[Moments]:
        """What every level is trained on, from the frames that some kept moment reads.

        Args:
            clip: `(B, C, T, H, W)`.
            actions: `(B, T, A)`, the action taken at each frame; None without.
            levels: only so many, from the lowest; None for all.
            detach: levels do not train those below them.
        """
        chosen = list(self.levels[:levels])
        below = self._actions_of(actions)
        readings = plan(chosen, self._moments_of(clip))
        have, result = readings[0].below, []
        states = self._tokens(clip, have)
        for number, (level, reading) in enumerate(zip(chosen, readings, strict=True)):
            if number and detach:
                states, below = states.detach(), None if below is None else below.detach()
            own = level.states(states, have, reading.moments)
            # states are read from the first on where they are read: the plan lists them all
            below = level.transitions(below, states if level.reads_states else None, reading.transitions)
            result.append(self._kept(own, below, reading))
            states, have = own, reading.moments
        return result

    @staticmethod
    def _kept(states: Tensor, actions: Tensor | None, reading: Reading) -> Moments:
        kept = reading.kept
        return Moments(states[:, :kept], None if actions is None else actions[:, : kept - 1])

    def _moments_of(self, clip: Tensor) -> int:
        if clip.shape[2] % self.tubelet:
            raise UserError(f"a clip of {clip.shape[2]} frames does not divide into tubelets of {self.tubelet}")
        return clip.shape[2] // self.tubelet

    def _tokens(self, clip: Tensor, moments: list[int]) -> Tensor:
        """The encoder's tokens of some moments, (B, len(moments), N, D)."""
        picked = clip.unflatten(2, (-1, self.tubelet))[:, :, moments]  # (B, C, L, tubelet, H, W)
        tokens = self.encoder(picked.transpose(1, 2).flatten(0, 1))  # (B L, N, D)
        return tokens.unflatten(0, (len(clip), len(moments)))

    def _actions_of(self, actions: Tensor | None) -> Tensor | None:
        """Actions between moments: those of a tubelet side by side, (B, moments - 1, tubelet A).

        A moment ends with its last frame, so the action taken there already belongs to the way to the next one.
        """
        if actions is None:
            return None
        between = actions[:, self.tubelet - 1 : actions.shape[1] - 1]
        return between.float().unflatten(1, (-1, self.tubelet)).flatten(2)


@torch.no_grad()
def lift(level: Level, predicted: Tensor, history: Tensor | None = None) -> Tensor:
    """States that a lower level predicted, as the level above it sees them.

    Args:
        level: the upper level.
        predicted: `(B, L, N, D)` of the lower level.
        history: `(B, L0, N, D)`, what went before; the sequence begins there.

    Returns:
        `(B, L', N', D')`, all moments of the joined sequence.
    """
    return level.abstract(predicted if history is None else torch.cat([history, predicted], dim=1))
