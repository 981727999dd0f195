"""Discrete planners on a floor with walls, against exhaustive search over every plan."""

import itertools

import pytest
import torch
from known_worlds import Floor, Linear

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.guardrails import HalfSpace
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.planners.dynamic import Dynamic
from jepa_pretrain.agent.planners.mcts import MCTS
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError

WORLD, LENGTH = Floor(), 6
START = torch.tensor([[0.0, 2], [2, 2], [4, 0], [3, 2]])[:, None]  # (4, 1, 2)
GOAL = torch.tensor([[2.0, 2], [0, 1], [2, 0], [3, 2]])[:, None]  # behind walls, and one that is already there
PLANNERS = [Dynamic(), Beam(24), MCTS(150, 4, explore=0.25)]


class Corner(torch.nn.Module):
    """A critic of what follows the last state: it is worth nothing but in the lower right."""

    every_step = False

    def forward(self, state: torch.Tensor, task: Task) -> torch.Tensor:
        return 5.0 * (state[:, 0] != 4).any(1)


def name(value: object) -> str:
    return type(value).__name__


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def exhaustive(cost: Cost, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """The least cost of all 5^6 plans, and the least violation, for each start."""
    plans = torch.tensor(list(itertools.product(range(5), repeat=task.horizon)))
    plans = torch.eye(5)[plans]  # (15625, L, 5)
    found = []
    for i in range(len(START)):
        states = WORLD.rollout(START[i].expand(len(plans), 1, 2), plans)
        one = task.of(torch.full((len(plans),), i))
        violation = cost.charge(states, plans, one).violation.sum(1)
        total = cost(states, plans, one)
        found.append(min(zip(violation.tolist(), total.tolist(), strict=True)))
    violation, total = torch.tensor(found).unbind(1)
    return total, violation


@pytest.mark.parametrize("planner", PLANNERS, ids=name)
@pytest.mark.parametrize("case", ["plain", "critic", "guardrail"])
def test_finds_what_exhaustive_search_finds(planner, case):
    cost = Cost(WORLD.action, {"corner": Corner()})
    left = HalfSpace(torch.tensor([0.0, -1]), limit=-1.0, weight=5.0)  # never in column 0, where the third starts
    length = 5 if isinstance(planner, MCTS) else LENGTH  # 600 of 3125 plans; the others are exact
    task = Task(GOAL, length, v={"corner": 1.0} if case == "critic" else {})
    task = Task(GOAL, length, guardrails=(left,)) if case == "guardrail" else task
    best, violation = exhaustive(cost, task)
    found = planner.plan(WORLD, cost, START, task, seeded())
    torch.testing.assert_close(found.violation, violation)
    torch.testing.assert_close(found.cost, best)
    states = WORLD.rollout(START, found.actions)
    torch.testing.assert_close(cost(states, found.actions, task), best)  # the plan returned is the plan that was scored


def test_greedy_search_does_not():
    """So that the walls are what makes the test above hard."""
    cost, task = Cost(WORLD.action), Task(GOAL, LENGTH)
    best, _ = exhaustive(cost, task)
    assert (Beam(1).plan(WORLD, cost, START, task, seeded()).cost > best + 0.1).any()
    assert (MCTS(1, 1).plan(WORLD, cost, START, task, seeded()).cost > best + 0.1).any()


@pytest.mark.parametrize("planner", PLANNERS, ids=name)
def test_pieces_change_nothing(planner):
    cost, task = Cost(WORLD.action), Task(GOAL, LENGTH)
    small = type(planner)(**{**vars(planner), "max_rollouts": 19})
    found = [one.plan(WORLD, cost, START, task, seeded()).actions for one in (planner, small)]
    assert torch.equal(*found)


@pytest.mark.parametrize("planner", [Dynamic(), Beam(1), MCTS(1, 1)], ids=name)
def test_a_given_plan_is_never_made_worse(planner):
    cost, task = Cost(WORLD.action), Task(GOAL, LENGTH)
    best = Dynamic().plan(WORLD, cost, START, task, seeded())
    found = planner.plan(WORLD, cost, START, task, seeded(), start=best.actions)
    torch.testing.assert_close(found.cost, best.cost)


def test_plans_hold_the_vectors_of_choices():
    found = Beam(4).plan(WORLD, Cost(WORLD.action), START, Task(GOAL, 3), seeded())
    assert found.actions.shape == (4, 3, 5) and (found.actions.sum(2) == 1).all()
    assert found.candidates.shape == (4, 4, 3, 5)


def test_mistakes_are_named():
    cost, task = Cost(WORLD.action), Task(GOAL, LENGTH)
    with pytest.raises(UserError, match="this model's are continuous; take CEM"):
        Beam().plan(Linear(), Cost(Linear().action), torch.zeros(1, 1, 4), Task(torch.zeros(1, 1, 4)), seeded())
    with pytest.raises(UserError, match="CEM plans continuous actions, this model has 5 choices"):
        CEM().plan(WORLD, cost, START, task, seeded())
    with pytest.raises(UserError, match="different states at one step, width is 3"):
        Dynamic(3).plan(WORLD, cost, START, task, seeded())
    for planner in PLANNERS:
        with pytest.raises(UserError, match=f"{name(planner)}: the state holds values that are not finite"):
            planner.plan(WORLD, cost, START * float("nan"), task, seeded())
