"""What a state says of the true one, by ridge regression on recordings, and the other way round: goals as vectors.

A person would rather say "to (.75, .25)" than show a picture. A linear readout of recorded states makes such a vector a
state: the recorded state that reads most like it, moved by the least that makes it read exactly so.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from jepa_pretrain.agent.guardrails import KeepOut
from jepa_pretrain.contracts import UserError

PENALTY = 1e-3  # of the ridge regression, on states of deviation one
KEPT = 1024  # recorded states that a readout keeps
BEYOND = 0.1  # of the recorded range that a goal may lie outside of it


class Reader(NamedTuple):
    """A ridge regression from states `(B, D)` to the true state `(B, P)`."""

    mean: Tensor  # (D,)
    weight: Tensor  # (D, P)
    bias: Tensor  # (P,)

    def __call__(self, states: Tensor) -> Tensor:
        return (states - self.mean) @ self.weight + self.bias


def fit(states: Tensor, truth: Tensor) -> Reader:
    """Fits the regression.

    Args:
        states: `(B, D)`.
        truth: `(B, P)`.
    """
    mean, bias = states.mean(0), truth.mean(0)
    x, penalty = (states - mean).double(), PENALTY * len(states) * states.var(0).mean().double()
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    return Reader(mean, torch.linalg.solve(gram, x.T @ (truth - bias).double()).float(), bias)


@dataclass(frozen=True)
class Readout:
    """A fitted readout and some recorded states.

    Args:
        mean: `(N * D,)` of the states.
        weight: `(N * D, P)`.
        bias: `(P,)`.
        bank: recorded states `(K, N, D)`, where goals begin.
        error: `()`, how far off readings are on average.
    """

    mean: Tensor
    weight: Tensor
    bias: Tensor
    bank: Tensor
    error: Tensor

    @classmethod
    def of(cls, states: Tensor, truth: Tensor) -> Self:
        """Fitted to recordings.

        Args:
            states: `(M, N, D)`.
            truth: `(M, P)`, what the body felt there.

        Raises:
            UserError: recordings in which the body feels nothing.
        """
        if not truth.shape[1]:
            raise UserError("these recordings tell nothing of the true state (no proprio), so no readout can be fitted")
        reader = fit(states.flatten(1), truth)
        error = (reader(states.flatten(1)) - truth).norm(dim=1).mean()
        chosen = torch.linspace(0, len(states) - 1, min(KEPT, len(states))).long()
        return cls(*reader, states[chosen], error)

    @property
    def width(self) -> int:
        """P."""
        return len(self.bias)

    def read(self, states: Tensor) -> Tensor:
        """`(..., N, D)` -> `(..., P)`."""
        return (states.flatten(-2) - self.mean) @ self.weight + self.bias

    def goals(self, vectors: Tensor) -> Tensor:
        """States that read as vectors say: `(G, P)` -> `(G, N, D)`.

        Args:
            vectors: in the units of the recordings.

        Raises:
            UserError: another number of entries, or a place where the recordings never were.
        """
        if vectors.dim() != 2 or vectors.shape[1] != self.width or not vectors.isfinite().all():
            raise UserError(f"a goal of this agent has {self.width} finite numbers, found {vectors.tolist()}")
        read = self.read(self.bank)  # (K, P)
        low, high = read.amin(0), read.amax(0)
        room = BEYOND * (high - low)
        outside = ((vectors < low - room) | (vectors > high + room)).any(1)
        if outside.any():
            told = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in zip(low.tolist(), high.tolist(), strict=True))
            raise UserError(f"the goal {vectors[outside][0].tolist()} lies outside of what was recorded: {told}")
        nearest = self.bank[torch.cdist(vectors, read).argmin(1)]
        missing = vectors - self.read(nearest)  # (G, P)
        return nearest + (missing @ torch.linalg.pinv(self.weight)).view_as(nearest)

    def keep_out(self, centre: Tensor, radius: float, name: str) -> KeepOut:
        """A hard guardrail around a place `(P,)`, in units of its radius whatever the world's are."""
        return KeepOut(
            self.weight.T / radius, (self.bias - self.mean @ self.weight) / radius, centre / radius, 1.0, name
        )
