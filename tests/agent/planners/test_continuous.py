"""Continuous planners in a linear world with a quadratic cost: the Riccati recursion says what is best."""

import pytest
import torch
from known_worlds import Floor, Linear

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.guardrails import HalfSpace, KeepOut
from jepa_pretrain.agent.planners.cem import CEM, ICEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.mppi import MPPI
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError

LENGTH, EFFORT = 6, 0.1
WORLD, START = Linear(), torch.tensor([[2.0, -1, 0, 0], [-1, 0.5, 1, -1], [0, 0, -1, 1]])[:, None]  # (3, 1, 4)
TASK = Task(torch.zeros(1, 1, 4), LENGTH, u={"goal": 1.0, "effort": EFFORT})
PLANNERS = [
    (CEM(400, 15, 50, least=0.001), 0.01),
    (ICEM(600, 15, 60, least=0.001, colour=0.25, decay=1.05), 0.02),
    (MPPI(400, 15, 50, least=0.001), 0.01),
    (Gradient(starts=3, iterations=100, rate=0.05), 0.0001),
]
QUICK = [CEM(32, 3, 4), ICEM(32, 3, 4), MPPI(32, 3, 4), Gradient(4, 10)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def name(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize(("planner", "excess"), PLANNERS, ids=name)
def test_finds_the_riccati_solution(planner, excess):
    best, cost = WORLD.riccati(START[:, 0], LENGTH, 1.0, EFFORT)
    found = planner.plan(WORLD, Cost(WORLD.action), START, TASK, seeded())
    assert (best.abs() < 3).all()  # the bounds do not bind, so the two problems are one
    assert (found.cost >= cost * 0.9999).all()
    assert (found.cost <= cost * (1 + excess)).all(), found.cost / cost
    assert (found.actions - best).abs()[:, 0].max() < 0.25


@pytest.mark.parametrize("planner", QUICK, ids=name)
def test_pieces_change_nothing_and_seeds_do(planner):
    cost, small = Cost(WORLD.action), type(planner)(**{**vars(planner), "max_rollouts": 7})
    whole = planner.plan(WORLD, cost, START, TASK, seeded())
    pieces = small.plan(WORLD, cost, START, TASK, seeded())
    other = planner.plan(WORLD, cost, START, TASK, seeded(1))
    torch.testing.assert_close(whole.actions, pieces.actions, atol=1e-4, rtol=1e-4)
    assert not torch.equal(whole.actions, other.actions)


@pytest.mark.parametrize("planner", QUICK, ids=name)
def test_no_more_than_max_rollouts_at_once(planner):
    sizes = []

    class Counting(Linear):
        def rollout(self, state, plan, z=None):
            sizes.append(len(plan))
            return super().rollout(state, plan, z)

    small = type(planner)(**{**vars(planner), "max_rollouts": 7})
    small.plan(Counting(), Cost(WORLD.action), START, TASK, seeded())
    assert max(sizes) == 7


@pytest.mark.parametrize("planner", QUICK, ids=name)
def test_a_given_plan_is_never_made_worse(planner):
    best, cost = WORLD.riccati(START[:, 0], LENGTH, 1.0, EFFORT)
    found = planner.plan(WORLD, Cost(WORLD.action), START, TASK, seeded(), start=best)
    assert (found.cost <= cost * 1.001).all()


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("planner", [*QUICK[:3], Gradient(8, 40)], ids=name)
def test_guardrail_is_kept_where_the_plan_without_it_violates(planner, hard):
    """From (2, 0) to the origin past a ball at (1, 0), for every step of the plan."""
    world, start = Linear(), torch.tensor([[[2.0, 0, 0, 0]]])
    wall = KeepOut(torch.eye(4)[:2], torch.zeros(2), torch.tensor([0.8, 0.0]), 0.45, weight=50.0, hard=hard)
    task = Task(torch.zeros(1, 1, 4), 8, u={"goal": 1.0, "effort": 0.01})
    free = planner.plan(world, Cost(world.action), start, task, seeded())
    kept = planner.plan(world, Cost(world.action), start, Task(task.goal, 8, task.u, guardrails=(wall,)), seeded())
    assert wall.violation(world.rollout(start, free.actions)).sum() > 0.1
    assert wall.violation(world.rollout(start, kept.actions)).sum() <= (0 if hard else 0.05)
    assert kept.safe.all()


def test_hard_guardrail_wins_over_any_cost_and_says_when_nothing_keeps_it():
    far = HalfSpace(torch.tensor([1.0, 0, 0, 0]), limit=-1.9, weight=0.0)  # nothing in the cost, only the choice
    task = Task(torch.tensor([[[9.0, 0, 9, 0]]]), 1, guardrails=(far,))  # which draws to the right
    start = torch.tensor([[[-2.0, 0, 0, 0]], [[2.0, 0, 0, 0]]])  # the second cannot get there in one step
    found = CEM(64, 3, 8).plan(WORLD, Cost(WORLD.action), start, task, seeded())
    assert found.safe.tolist() == [True, False]
    nearest = WORLD.step(start, torch.tensor([[0.0, 0], [-4.0, 0]]))[1, 0, 0] + 1.9  # by full braking
    assert found.violation[1] < nearest * 1.1  # and where none keeps it, the one that violates least


class Broken(Linear):
    """Predicts NaN at the third step of a plan."""

    def rollout(self, state, plan, z=None):
        states = super().rollout(state, plan, z)
        return torch.cat([states[:, :2], states[:, 2:] * float("nan")], 1)


@pytest.mark.parametrize("planner", QUICK, ids=name)
@pytest.mark.parametrize(
    ("world", "state", "task", "start", "message"),
    [
        (Broken(), START, TASK, None, "not finite from step 3 on"),
        (WORLD, START * float("nan"), TASK, None, "the state holds values that are not finite"),
        (WORLD, START[..., :3], TASK, None, r"state of this world model is \(B, 1, 4\), found \(3, 1, 3\)"),
        (WORLD, START, Task(torch.zeros(1, 1, 5)), None, r"goal of this world model is \(B, 1, 4\)"),
        (WORLD, START, Task(torch.zeros(2, 1, 4)), None, "2 goals for 3 states"),
        (WORLD, START, TASK, torch.zeros(3, 6, 5), r"a plan to start from is \(3, L, 2\)"),
        (WORLD, START, Task(torch.zeros(1, 1, 4), u={"comfort": 1.0}), None, "unknown intrinsic term 'comfort'"),
        (WORLD, START, Task(torch.zeros(1, 1, 4), u={"uncertainty": 1.0}), None, "needs an Ensemble"),
        (WORLD, START, Task(torch.zeros(1, 1, 4), v={"ahead": 1.0}), None, "no critic called ahead"),
        (Floor(), START[..., :2], Task(torch.zeros(1, 1, 2)), None, "5 choices; take Beam"),
    ],
)
def test_mistakes_are_named(planner, world, state, task, start, message):
    with pytest.raises(UserError, match=message) as found:
        planner.plan(world, Cost(world.action), state, task, seeded(), start)
    if isinstance(world, Broken):
        assert name(planner) in str(found.value)


@pytest.mark.parametrize("wrong", [{"elites": 65}, {"iterations": 0}, {"elites": 1}])
def test_contradicting_settings_are_refused(wrong):
    with pytest.raises(UserError, match="needs 2 <= elites <= samples"):
        CEM(**wrong)


def test_coloured_noise_has_deviation_one_and_is_smooth_in_time():
    mean = torch.zeros(1, 8, 2)
    smooth, white = (one.noise(mean, 4000, seeded(), 1) for one in (ICEM(colour=3.0), CEM()))
    torch.testing.assert_close(smooth.std(1), torch.ones(1, 8, 2), atol=0.05, rtol=0)

    def change(noise: torch.Tensor) -> float:
        return (noise[:, :, 1:] - noise[:, :, :-1]).square().mean().item()

    assert change(smooth) < 0.5 * change(white)

    blocks = ICEM(colour=3.0).noise(torch.zeros(1, 2, 8), 4000, seeded(), 4)  # two blocks of four steps
    assert torch.allclose(blocks.unflatten(3, (4, 2)).flatten(2, 3), smooth), "the environment's steps, not the blocks"
