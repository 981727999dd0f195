"""The cost of imagined futures: C(s) = sum u_i IC_i(s) + sum v_j TC_j(s) (LeCun 2022, section 3.2).

Intrinsic terms have no parameters, so that no training can talk the agent out of them; critics are trained. The
weights u and v are the task's. Everything is differentiable in states and plan. Costs are summed over the steps of a
plan: a cost of the last step alone lets a receding horizon put off its goal for ever.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.critic import ToGoal
from jepa_pretrain.agent.recorded import Recorded
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import ActionSpace, Continuous
from jepa_pretrain.contracts import UserError

INTRINSIC = ("goal", "effort", "bounds", "uncertainty", "recorded")


class Charge(NamedTuple):
    """What each step of a plan costs."""

    running: Tensor  # (B, L) weighted sum of what counts at every step
    violation: Tensor  # (B, L) of the hard guardrails, unweighted


class Cost(nn.Module):
    """Weighs intrinsic terms and critics as the task says.

    Args:
        action: the model's actions, for the bounds.
        critics: trained critics by name, `forward(state (B, N, D), task) -> (B,)`; one whose `every_step` is False
            predicts a sum of what follows, and so counts at the last step alone.
        recorded: actions that were really taken, for the term of that name.
    """

    def __init__(
        self,
        action: ActionSpace,
        critics: dict[str, nn.Module] | None = None,
        recorded: Recorded | None = None,
    ) -> None:
        super().__init__()
        self.action, self.recorded = action, recorded
        self.critics = nn.ModuleDict(critics or {})

    def intrinsic(
        self, states: Tensor, plan: Tensor, task: Task, disagreement: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The unweighted terms that the task's `u` names, and every guardrail's violation as `guardrail/NAME`.

        Args:
            states: `(B, L, N, D)`, the states after each action.
            plan: `(B, L, A)`.
            task: goal `(B, N, D)` or `(1, N, D)`, weights, guardrails.
            disagreement: `(B, L)` of an ensemble, or None.

        Returns:
            `(B, L)` by name.

        Raises:
            UserError: an unknown term, or uncertainty without an ensemble.
        """
        terms = {}
        for name in task.u:
            if name == "goal":
                terms[name] = (states - task.goal[:, None]).square().mean((-1, -2))
            elif name == "effort":
                terms[name] = plan.square().mean(-1)
            elif name == "bounds":
                terms[name] = self._beyond(plan)
            elif name == "uncertainty":
                if disagreement is None:
                    raise UserError("the uncertainty term needs an Ensemble as the world model, or leave it out of u")
                terms[name] = disagreement
            elif name == "recorded":
                if self.recorded is None:
                    raise UserError("the recorded term needs recorded actions: give them to Cost, or leave it out of u")
                terms[name] = self.recorded.distance(plan)
            else:
                raise UserError(f"unknown intrinsic term {name!r}; known: {', '.join(INTRINSIC)}")
        return terms | {f"guardrail/{one.name}": one.violation(states) for one in task.guardrails}

    def charge(self, states: Tensor, plan: Tensor, task: Task, disagreement: Tensor | None = None) -> Charge:
        """The weighted cost of every step, without the critics of the last; arguments as in `intrinsic`."""
        running, violation = states.new_zeros(plan.shape[:2]), states.new_zeros(plan.shape[:2])
        terms = self.intrinsic(states, plan, task, disagreement)
        for name, weight in task.u.items():
            running = running + weight * terms[name]
        for one in task.guardrails:
            amount = terms[f"guardrail/{one.name}"]
            running = running + one.weight * amount
            violation = violation + amount if one.hard else violation
        for name, critic in self._asked(task, every_step=True):
            running = running + task.v[name] * _at_steps(critic, states, task)
        return Charge(running, violation)

    def final(self, last: Tensor, task: Task) -> Tensor:
        """What the critics say of all that follows the last state: `(B, N, D)` -> `(B,)`."""
        total = last.new_zeros(last.shape[0])
        for name, critic in self._asked(task, every_step=False):
            total = total + task.v[name] * critic(last, task)
        return total

    def forward(self, states: Tensor, plan: Tensor, task: Task, disagreement: Tensor | None = None) -> Tensor:
        """The cost of a whole plan, `(B,)`; arguments as in `intrinsic`."""
        return self.charge(states, plan, task, disagreement).running.sum(1) + self.final(states[:, -1], task)

    def terms(self, states: Tensor, plan: Tensor, task: Task, disagreement: Tensor | None = None) -> dict[str, Tensor]:
        """Every term at every step, unweighted and detached, critics as `critic/NAME`: `(B, L)` by name."""
        with torch.no_grad():
            found = self.intrinsic(states, plan, task, disagreement)
            critics = {f"critic/{name}": _at_steps(self.critics[name], states, task) for name in task.v}
        return found | critics

    def _asked(self, task: Task, every_step: bool) -> list[tuple[str, nn.Module]]:
        unknown = sorted(task.v.keys() - set(self.critics))
        if unknown:
            raise UserError(
                f"no critic called {', '.join(unknown)}; this agent has: {', '.join(self.critics) or 'none'}"
            )
        return [(name, self.critics[name]) for name in task.v if self.critics[name].every_step == every_step]

    def _beyond(self, plan: Tensor) -> Tensor:
        """How far actions lie outside the bounds, squared, `(B, L)`; choices are never outside."""
        if not isinstance(self.action, Continuous):
            return plan.new_zeros(plan.shape[:2])
        low, high = self.action.low.to(plan), self.action.high.to(plan)
        return (plan - plan.clamp(low, high)).square().mean(-1)


def _at_steps(critic: nn.Module, states: Tensor, task: Task) -> Tensor:
    """A critic at every state of a plan, `(B, L, N, D)` -> `(B, L)`."""
    if isinstance(critic, ToGoal):
        return critic.along(states, task.goal)
    batch, steps = states.shape[:2]
    rows = torch.arange(batch, device=states.device).repeat_interleave(steps)
    return critic(states.flatten(0, 1), task.of(rows)).unflatten(0, (batch, steps))
