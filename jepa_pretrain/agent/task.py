"""What the agent is asked to do: a goal, how far to look ahead, what counts and by how much, and what must not happen.

The configurator's output in LeCun 2022, section 3.1: everything that the other modules need to know of the task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol, Self

from torch import Tensor

from jepa_pretrain.contracts import UserError


class Guardrail(Protocol):
    """A function of the state that must stay at zero at every step of a plan (`agent/guardrails.py` has two)."""

    name: str
    weight: float  # of the violation in the cost, hard or not: it is what gradients see
    hard: bool  # a plan that violates it is never chosen while another does not

    def violation(self, states: Tensor) -> Tensor:
        """`(..., N, D)` -> `(...)`: 0 where kept, and how far off where not."""
        ...


@dataclass(frozen=True)
class Task:
    """A goal and how to pursue it.

    Args:
        goal: the state to reach, `(B, N, D)`, or `(1, N, D)` for all environments alike.
        horizon: model steps L to look ahead.
        u: weights of the intrinsic terms of the cost by name: goal, effort, bounds, uncertainty (`agent/cost.py`).
        v: weights of the trained critics by name.
        guardrails: what must not happen.
        risk: standard deviations of a plan's cost, over what chance and ensembles may bring, that are added to its
            mean: 0 is neutral, above is averse.
        samples: futures drawn per plan and ensemble member, where the model has latent variables.

    Raises:
        UserError: a goal that is no state, a horizon or samples below 1, a risk below 0.
    """

    goal: Tensor
    horizon: int = 5
    u: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"goal": 1.0}))
    v: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    guardrails: tuple[Guardrail, ...] = ()
    risk: float = 0.0
    samples: int = 16

    def __post_init__(self) -> None:
        if self.goal.dim() != 3:
            raise UserError(
                f"a goal is a state (B, N, D), found shape {tuple(self.goal.shape)}; encode the picture first"
            )
        if self.horizon < 1:
            raise UserError(f"a plan needs a horizon of 1 or more, found {self.horizon}")
        if not self.risk >= 0 or self.samples < 1:
            raise UserError(f"a task needs risk >= 0 and 1 sample or more, found {self.risk} and {self.samples}")

    def of(self, rows: Tensor) -> Self:
        """The same task for some environments, in the order and as often as `rows` names them.

        Args:
            rows: `(B',)` int64.
        """
        return self if self.goal.shape[0] == 1 else replace(self, goal=self.goal[rows])
