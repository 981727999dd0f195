"""Regions of the state that plans keep out of, read off the state by a fixed linear map (LeCun 2022, section 3.2)."""

from dataclasses import dataclass

from torch import Tensor

from jepa_pretrain.contracts import UserError


@dataclass(frozen=True)
class HalfSpace:
    """Keeps `readout . state` at or below `limit`.

    Args:
        readout: `(N * D,)`.
        limit: the largest value allowed; a margin for the model's error belongs in here.
        name: for messages and pages.
        weight: cost per unit of violation.
        hard: never choose a plan that violates it while another does not.
    """

    readout: Tensor
    limit: float
    name: str = "half-space"
    weight: float = 100.0
    hard: bool = True

    def violation(self, states: Tensor) -> Tensor:
        """`(..., N, D)` -> `(...)`, the units beyond the limit."""
        return (_read(states, self.readout[None]).squeeze(-1) - self.limit).clamp_min(0)


@dataclass(frozen=True)
class KeepOut:
    """Keeps `readout state + bias` at least `radius` away from a centre.

    Args:
        readout: `(P, N * D)`, for example a linear probe of the position.
        bias: `(P,)`.
        centre: `(P,)`.
        radius: of the forbidden ball; a margin for the model's error belongs in here.
        name: for messages and pages.
        weight: cost per unit of violation.
        hard: never choose a plan that violates it while another does not.
    """

    readout: Tensor
    bias: Tensor
    centre: Tensor
    radius: float
    name: str = "keep out"
    weight: float = 100.0
    hard: bool = True

    def violation(self, states: Tensor) -> Tensor:
        """`(..., N, D)` -> `(...)`, how deep inside."""
        distance = (_read(states, self.readout) + self.bias - self.centre).norm(dim=-1)
        return (self.radius - distance).clamp_min(0)


def _read(states: Tensor, readout: Tensor) -> Tensor:
    """`(..., N, D)` -> `(..., P)`."""
    flat = states.flatten(-2)
    if flat.shape[-1] != readout.shape[1]:
        raise UserError(f"a guardrail reads states of {readout.shape[1]} numbers, found {flat.shape[-1]}")
    return flat @ readout.T
