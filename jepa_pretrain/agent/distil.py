"""From Mode-2 to Mode-1: a policy learns to do at once what the planner finds by searching (LeCun 2022, section 3.1.3).

Two losses. Where the planner was asked, the policy imitates the first action of its plan. Everywhere else it descends
the cost that plans are judged by, through the world model, for what itself would do next: that is cheap, and teaches
the ordinary. What it cannot teach are the ways out of places where all small changes make things worse, such as the
wall before the goal; there the policy stands still, so that asking where it came to finds them (dataset aggregation,
Ross et al. 2011, arXiv 1011.0686). Plans start from what the policy would do, and so get better with it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_pretrain.agent.actor import Planning, Policy, imagined
from jepa_pretrain.agent.learning import descend
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import imagine
from jepa_pretrain.contracts import UserError

AHEAD = 2  # model steps of its own cost that the policy descends; a critic in the cost knows what follows
OWN = 0.5  # weight of that cost, over its present size

Visit = Callable[[Policy], tuple[Tensor, Tensor]]  # run the policy: states and goals met, (P, N, D) each
Loss = Callable[[Tensor], Tensor]


class Decisions(NamedTuple):
    """What the planner was asked and answered."""

    states: Tensor  # (P, N, D)
    goals: Tensor  # (P, N, D)
    actions: Tensor  # (P, A)


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
    ask: int | None = None,
) -> list[float]:
    """Train a policy on a planner's decisions, and on the cost that these were judged by.

    Args:
        policy: trained in place.
        planning: the teacher; its warm start is not used, as the states do not follow each other. Its cost is frozen.
        task: horizon, weights and guardrails; its goal is replaced.
        states: recorded states `(P, N, D)`.
        goals: a goal for each, `(P, N, D)`.
        generator: draws batches, on the CPU.
        visit: runs the policy where it will act, and returns the states and goals it met; without it the world model
            is asked where the policy would lead.
        rounds: of asking the teacher and training; the first one on the recorded states.
        steps: of training in each round; twice as many come before, on the cost alone, where actions are numbers.
        batch: decisions per step.
        rate: learning rate.
        ask: states that the teacher is asked about in each round, at most; all without.

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
    own = _own_cost(policy, planning, task, states, goals, generator)
    if not policy.discrete:
        descend(policy, len(states), own, generator, 2 * steps, batch, rate)
    known, losses = None, []
    for number in range(rounds):
        met = (states, goals)
        if number:
            met = visit(policy) if visit else _led_to(policy, planning, task, states, goals)
        some = torch.randperm(len(met[0]), generator=generator)[:ask].sort().values
        fresh = _asked(policy, planning, task, met[0][some], met[1][some], generator)
        known = fresh if known is None else Decisions(*(torch.cat(pair) for pair in zip(known, fresh, strict=True)))
        loss = _both(_imitation(policy, known), own, len(states), generator, policy.discrete)
        losses.append(descend(policy, len(known.states), loss, generator, steps, batch, rate))
    return losses


def _both(imitation: Loss, own: Loss, count: int, generator: torch.Generator, discrete: bool) -> Loss:
    """Imitation where the planner was asked, and the policy's own cost in half as many recorded states."""
    if discrete:  # a choice has no gradient
        return imitation
    return lambda chosen: imitation(chosen) + own(torch.randint(count, (len(chosen) // 2,), generator=generator))


def _asked(
    policy: Policy, planning: Planning, task: Task, states: Tensor, goals: Tensor, generator: torch.Generator
) -> Decisions:
    """What the planner does first, `(P, A)`, starting from the policy; as many at a time as it rolls out at once."""
    several = max(1, planning.planner.max_rollouts // 64)
    own = torch.Generator(states.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    found = []
    for piece in (slice(i, i + several) for i in range(0, len(states), several)):
        one = replace(task, goal=goals[piece])
        start = None if policy.discrete else imagined(policy, planning.model, states[piece], one)[1]
        plan = planning.planner.plan(planning.model, planning.cost, states[piece], one, own, start)
        found.append(plan.actions[:, 0])
    return Decisions(states, goals, torch.cat(found))


def _led_to(policy: Policy, planning: Planning, task: Task, states: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
    """Where the policy would lead from recorded states, if the model is right: one state of each way."""
    way, _ = imagined(policy, planning.model, states, replace(task, goal=goals))  # (P, L, N, D)
    step = torch.arange(len(states), device=states.device) % task.horizon
    return way[torch.arange(len(states), device=states.device), step], goals


def _own_cost(
    policy: Policy, planning: Planning, task: Task, states: Tensor, goals: Tensor, generator: torch.Generator
) -> Loss:
    """What the policy's next steps cost from recorded states towards any goals, over its present size."""
    planning.cost.requires_grad_(False)
    ahead = min(AHEAD, task.horizon) if task.v else task.horizon

    def loss(chosen: Tensor) -> Tensor:
        state, goal = states[chosen], goals[torch.randint(len(goals), (len(chosen),), generator=generator)]
        first, actions = state, []
        for _ in range(ahead):
            actions.append(policy(state, goal))
            state = planning.model.step(state, actions[-1])
        plan = torch.stack(actions, 1)  # (B, L, A)
        found = imagine(planning.model, first, plan)
        cost = planning.cost(found.states, plan, replace(task, goal=goal, horizon=ahead), found.disagreement).mean()
        return OWN * cost / cost.detach().abs().clamp_min(1e-6)

    return loss


def _imitation(policy: Policy, known: Decisions) -> Loss:
    """The loss on some decisions: squared error over half the range, or cross entropy of the planner's choice."""
    states, goals, actions = known
    if policy.discrete:
        choice = torch.cdist(actions, policy.choices).argmin(1)
        return lambda chosen: F.cross_entropy(policy(states[chosen], goals[chosen]), choice[chosen])
    return lambda chosen: ((policy(states[chosen], goals[chosen]) - actions[chosen]) / policy.reach).square().mean()
