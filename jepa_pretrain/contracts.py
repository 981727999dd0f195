"""The nouns and protocols that every part of the package agrees on.

Shape letters, used in every comment of the project:

    B batch    C channels   T frames       H, W height, width   N tokens    D width
    K kept tokens           M target blocks                     V views
    L plan length           A action width                      Z latent width         S samples
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Grid(NamedTuple):
    """Token grid of a clip: `t` steps in time (1 for images), `h` rows, `w` columns."""

    t: int
    h: int
    w: int

    @property
    def tokens(self) -> int:
        """Number of tokens N = t * h * w; token i is at (i // (h * w), i // w % h, i % w)."""
        return self.t * self.h * self.w


class Masks(NamedTuple):
    """Which tokens are seen and which are predicted; token indices, int64."""

    context: Tensor  # (B, K)
    targets: Tensor  # (B, M, K')


class Batch(NamedTuple):
    """What the data side hands to a method. Workers ship `uint8`; encoders normalise."""

    views: list[Tensor]  # V tensors (B, C, T, H, W), uint8
    masks: list[Masks]  # one per mask generator; empty without one
    label: Tensor  # (B,) int64, -1 where there is none
    key: list[str]  # (B,) "shard/sample" names, for messages and for replay
    actions: Tensor | None = None  # (B, T, A) float, what was done from each frame on; None where nothing acted


class Trajectory(NamedTuple):
    """Recorded behaviour: one clip per decision and the action taken there."""

    clips: Tensor  # (B, L, C, T, H, W)
    actions: Tensor  # (B, L, A)


class Episode(NamedTuple):
    """One recorded episode of F frames; the last of them leads nowhere and has no action."""

    frames: Tensor  # (F, C, H, W) uint8
    actions: Tensor  # (F - 1, A) float32
    proprio: Tensor  # (F, P) float32, what the body felt
    state: Tensor  # (F, S) float32, the truth as far as the environment told it
    about: dict[str, Any]  # environment, behaviour, seed, reset options, whether the goal was reached


class Output(NamedTuple):
    """What `Method.step` returns; `terms` and `features` are detached."""

    loss: Tensor  # ()
    terms: dict[str, Tensor]  # scalars to log, by name
    features: Tensor  # (B, D) pooled features of the first view, for probes and monitors


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its one line and no traceback."""


@runtime_checkable
class Encoder(Protocol):
    """Maps a clip to its grid of tokens.

    `forward(clip, keep=None)`: clip `(B, C, T, H, W)`, uint8 in 0..255 or float in 0..1, to `(B, N, D)`; with
    `keep` `(B, K)` only those tokens are computed, `(B, K, D)`. Encoders that cannot drop tokens raise.
    """

    grid: Grid
    width: int

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor: ...


class Masker(ABC):
    """Draws masks; a pure function of its arguments. (A base class: recipes cannot name a protocol that is called.)"""

    @abstractmethod
    def __call__(self, batch_size: int, grid: Grid, rng: torch.Generator) -> Masks:
        """Masks of a batch."""


@runtime_checkable
class Predictor(Protocol):
    """Predicts target tokens from context tokens: `(B, K, D)`, masks -> `(B, M, K', D)`."""

    def forward(self, context: Tensor, masks: Masks) -> Tensor: ...
