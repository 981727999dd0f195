"""A policy distilled from a planner comes close to it where the best plan is known."""

from dataclasses import replace

import pytest
import torch
from known_worlds import Floor, Linear

from jepa_pretrain.agent.actor import Planning, Policy
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.distil import distil
from jepa_pretrain.agent.planners.dynamic import Dynamic
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError

WORLD, LENGTH = Linear(), 4
TASK = Task(torch.zeros(1, 1, 4), LENGTH, u={"goal": 1.0, "effort": 0.1})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cost_of(act, start: torch.Tensor, steps: int = 8) -> torch.Tensor:
    """Mean cost of acting in the linear world."""
    cost, state, states, actions = Cost(WORLD.action), start, [], []
    for _ in range(steps):
        actions.append(act(state))
        state = WORLD.step(state, actions[-1])
        states.append(state)
    return cost(torch.stack(states, 1), torch.stack(actions, 1), TASK).mean()


def test_policy_does_what_the_planner_does():
    torch.manual_seed(0)
    planning = Planning(WORLD, Cost(WORLD.action), Gradient(1, 40, rate=0.2))
    policy = Policy.of(WORLD, hidden=64)
    states = torch.randn(256, 1, 4, generator=seeded()) * torch.tensor([1.0, 1, 0.5, 0.5])
    start = torch.randn(64, 1, 4, generator=seeded(1)) * torch.tensor([1.0, 1, 0.5, 0.5])
    before = cost_of(lambda state: policy.act(state, TASK), start)
    known = (states, torch.zeros_like(states))
    losses = distil(policy, planning, TASK, *known, seeded(), rounds=2, steps=100, rate=3e-3, ask=64)
    best = cost_of(lambda state: WORLD.riccati(state[:, 0], LENGTH, 1.0, 0.1)[0][:, 0], start)
    after = cost_of(lambda state: policy.act(state, TASK), start)
    assert best < after < best * 1.05 < before, (best, after, before)
    assert len(losses) == 2


def test_a_policy_learns_from_the_cost_where_nobody_was_asked():
    torch.manual_seed(0)
    planning, policy = Planning(WORLD, Cost(WORLD.action), Gradient(1, 1)), Policy.of(WORLD, hidden=32)
    states = torch.randn(256, 1, 4, generator=seeded()) * torch.tensor([1.0, 1, 0.5, 0.5])
    distil(policy, planning, TASK, states, torch.zeros_like(states), seeded(), rounds=1, steps=60, rate=3e-3, ask=1)
    best = cost_of(lambda state: WORLD.riccati(state[:, 0], LENGTH, 1.0, 0.1)[0][:, 0], states[:64])
    after = cost_of(lambda state: policy.act(state, TASK), states[:64])
    assert best < after < 1.2 * best, (best, after)


def test_second_round_asks_about_the_states_the_policy_met():
    asked, starts = [], []

    class Watching(Planning):
        def __init__(self):
            super().__init__(WORLD, Cost(WORLD.action), Gradient(1, 1))

    class Teacher(Gradient):
        def plan(self, model, cost, state, task, generator, start=None):
            asked.append(state)
            starts.append(start)
            return super().plan(model, cost, state, task, generator, start)

    planning = Watching()
    planning.planner = Teacher(1, 1)
    states, met = torch.randn(8, 1, 4, generator=seeded()), torch.full((3, 1, 4), 0.5)
    policy = Policy.of(WORLD, hidden=8)
    distil(
        policy, planning, TASK, states, torch.zeros_like(states), seeded(),
        visit=lambda policy: (met, torch.zeros_like(met)), rounds=2, steps=1,
    )  # fmt: skip
    assert torch.equal(asked[0], states) and torch.equal(asked[1], met)
    assert starts[1].shape == (3, LENGTH, WORLD.action.width), "plans start from the policy's"
    distil(policy, planning, TASK, states, states, seeded(), rounds=1, steps=1, ask=5)
    assert len(asked[2]) == 5 and len(asked[2].unique(dim=0)) == 5


def test_choices_are_distilled_too():
    torch.manual_seed(0)
    world = Floor()
    planning, policy = Planning(world, Cost(world.action), Dynamic()), Policy.of(world, hidden=64)
    states = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))[:, None]
    goals = torch.full_like(states, 4.0)
    task = Task(goals[:1], 8)
    distil(policy, planning, task, states, goals, seeded(), rounds=1, steps=300, batch=64, rate=3e-3)
    planned = planning.planner.plan(world, planning.cost, states, replace(task, goal=goals), seeded()).cost
    state, total = states, 0
    for _ in range(8):
        state = world.step(state, policy.act(state, task))
        total = total + (state - goals).square().mean((1, 2))
    free = (states[:, 0, None] != world.WALLS).any(2).all(1)  # nobody starts in a wall
    assert (total <= planned + 1e-4)[free].float().mean() > 0.9


def test_policy_is_where_a_plan_starts_from():
    torch.manual_seed(0)
    policy = Policy.of(WORLD, hidden=8)
    start = torch.ones(2, 1, 4)
    planning = Planning(WORLD, Cost(WORLD.action), Gradient(1, 1, rate=1e-6), policy=policy)
    torch.testing.assert_close(planning.act(start, TASK), policy.act(start, TASK), atol=1e-4, rtol=1e-4)


def test_mistakes_are_named():
    planning = Planning(WORLD, Cost(WORLD.action), Gradient(1, 1))
    with pytest.raises(UserError, match="a goal for each state"):
        distil(Policy.of(WORLD), planning, TASK, torch.zeros(3, 1, 4), torch.zeros(2, 1, 4), seeded())
    with pytest.raises(UserError, match="this policy reads states of 4 numbers"):
        distil(Policy.of(WORLD), planning, TASK, torch.zeros(3, 1, 5), torch.zeros(3, 1, 5), seeded())
    with pytest.raises(UserError, match="either low and high bounds or choices"):
        Policy(4)
