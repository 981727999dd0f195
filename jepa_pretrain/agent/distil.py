"""From Mode-2 to Mode-1: a policy learns to do at once what the planner finds by searching (LeCun 2022, section 3.1.3).

Dataset aggregation (Ross et al. 2011, arXiv 1011.0686): the planner is asked what to do in recorded states first, then
in the states that the policy itself comes to, so that it learns to mend its own mistakes too.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_pretrain.agent.actor import Planning, Policy, imagined
from jepa_pretrain.agent.learning import descend
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError

Visit = Callable[[Policy], tuple[Tensor, Tensor]]  # run the policy: states and goals met, (P, N, D) each


def distil(
    policy: Policy,
    planning: Planning,
    task: Task,
    states: Tensor,
    goals: Tensor,
    generator: torch.Generator,
    visit: Visit | None = None,
    rounds: int = 3,
    steps: int = 500,
    batch: int = 256,
    rate: float = 1e-3,
) -> list[float]:
    """Train a policy on a planner's decisions.

    Args:
        policy: trained in place.
        planning: the teacher; its warm start is not used, as the states do not follow each other.
        task: horizon, weights and guardrails; its goal is replaced.
        states: recorded states `(P, N, D)`.
        goals: a goal for each, `(P, N, D)`.
        generator: draws batches, on the CPU.
        visit: runs the policy where it will act, and returns the states and goals it met; without it the world model
            is asked where the policy would lead.
        rounds: of asking the teacher and training; the first one on the recorded states.
        steps: of training in each round.
        batch: decisions per step.
        rate: learning rate.

    Returns:
        The loss at the end of each round.

    Raises:
        UserError: another number of goals than states, states of another width than the policy's, or no round.
    """
    if states.shape != goals.shape or not len(states) or rounds < 1:
        raise UserError(
            f"distilling needs a goal for each state and a round, found states {tuple(states.shape)}, "
            f"goals {tuple(goals.shape)}, {rounds} rounds"
        )
    if states.flatten(1).shape[1] != len(policy.centre):
        raise UserError(f"this policy reads states of {len(policy.centre)} numbers, found {tuple(states.shape[1:])}")
    flat = states.flatten(1)
    policy.centre.copy_(flat.mean(0))
    policy.scale.copy_((flat - policy.centre).square().mean().sqrt().clamp_min(1e-6))
    met, losses, decisions = (states, goals), [], None
    for number in range(rounds):
        if number:
            met = visit(policy) if visit else _led_to(policy, planning, task, states, goals)
        fresh = (*met, _asked(planning, task, *met, generator))
        decisions = (
            fresh if decisions is None else tuple(torch.cat(pair) for pair in zip(decisions, fresh, strict=True))
        )
        losses.append(descend(policy, len(decisions[0]), _imitation(policy, *decisions), generator, steps, batch, rate))
    return losses


def _asked(planning: Planning, task: Task, states: Tensor, goals: Tensor, generator: torch.Generator) -> Tensor:
    """What the planner does first from each state, `(P, A)`; as many at a time as it rolls out at once."""
    several = max(1, planning.planner.max_rollouts // 64)
    own = torch.Generator(states.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    found = []
    for piece in (slice(i, i + several) for i in range(0, len(states), several)):
        one = replace(task, goal=goals[piece])
        found.append(planning.planner.plan(planning.model, planning.cost, states[piece], one, own).actions[:, 0])
    return torch.cat(found)


def _led_to(policy: Policy, planning: Planning, task: Task, states: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
    """Where the policy would lead from recorded states, if the model is right: one state of each way."""
    way, _ = imagined(policy, planning.model, states, replace(task, goal=goals))  # (P, L, N, D)
    step = torch.arange(len(states), device=states.device) % task.horizon
    return way[torch.arange(len(states), device=states.device), step], goals


def _imitation(policy: Policy, states: Tensor, goals: Tensor, actions: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss on some decisions: squared error over half the range, or cross entropy of the planner's choice."""
    if policy.discrete:
        choice = torch.cdist(actions, policy.choices).argmin(1)
        return lambda chosen: F.cross_entropy(policy(states[chosen], goals[chosen]), choice[chosen])
    return lambda chosen: ((policy(states[chosen], goals[chosen]) - actions[chosen]) / policy.half).square().mean()
