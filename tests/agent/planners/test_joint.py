"""All levels at once, on the linear problem of two levels: its optimum is that of one least-squares problem."""

import pytest
import torch
from known_worlds import Known, Linear

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.hierarchical import Hierarchical, Upper
from jepa_pretrain.agent.planners.joint import Joint
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous
from jepa_pretrain.contracts import UserError

EFFORT = 0.1
START = torch.tensor([[2.0, -1, 0, 0], [-1, 0.5, 1, -1]])
TASK = Task(torch.zeros(1, 1, 4), 2, {"goal": 1.0, "effort": EFFORT})


class Twice(Known):
    """Two steps of the linear world as one; a = both actions."""

    def __init__(self) -> None:
        super().__init__(4, Continuous(torch.full((4,), -4.0), torch.full((4,), 4.0)))
        self.below = Linear()

    def step(self, state, action, z=None):
        for part in action.split(2, dim=1):
            state = self.below.step(state, part)
        return state


def together(start: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Both plans, `(12 + 4,)`: the macro-actions of three steps, then the actions of two; and what they cost."""
    world = Linear()
    a, b, x = world.a.double(), world.b.double(), start.double()
    rows, right, states = [], [], []
    effect, free = torch.zeros(4, 16).double(), x
    for i in range(3):
        free, effect = a @ a @ free, a @ a @ effect
        effect[:, 4 * i : 4 * i + 4] += torch.cat([a @ b, b], 1)
        states.append((effect.clone(), free))
        rows.append(effect / 2)
        right.append(-free / 2)
    wanted, offset = states[0]
    effect, free = torch.zeros(4, 16).double(), x
    for i in range(2):
        free, effect = a @ free, a @ effect
        effect[:, 12 + 2 * i : 14 + 2 * i] += b
        rows.append((effect - wanted) / 2)
        right.append((offset - free) / 2)
    weights = torch.cat([torch.full((12,), EFFORT / 4), torch.full((4,), EFFORT / 2)]).sqrt().double()
    rows.append(torch.diag(weights))
    right.append(torch.zeros(16).double())
    left, end = torch.cat(rows), torch.cat(right)
    found = torch.linalg.lstsq(left, end[:, None]).solution[:, 0]
    return found.float(), (left @ found - end).square().sum().item()


def first(**settings) -> Hierarchical:
    model, search = Twice(), Gradient(1, 30, rate=0.1)
    return Hierarchical(search, (Upper(model, Cost(model.action), search, lambda s: s, 3, TASK.u, **settings),))


def test_finds_the_common_optimum_of_both_levels():
    world = Linear()
    found = Joint(first(), starts=2, iterations=150, rate=0.05).plan(
        world, Cost(world.action), START[:, None], TASK, torch.Generator().manual_seed(0)
    )
    for row in range(2):
        best, least = together(START[row])
        assert least * 0.999 < found.cost[row].item() < least * 1.002
        torch.testing.assert_close(found.thoughts[0].actions[row].flatten(), best[:12], atol=0.05, rtol=0.03)
        torch.testing.assert_close(found.actions[row].flatten(), best[12:], atol=0.05, rtol=0.03)
    assert found.thoughts[0].steps.tolist() == [3, 3] and found.candidates.shape == (2, 2, 2, 2)


def test_a_level_that_is_there_sets_no_sub_goal_and_mistakes_are_named():
    world = Linear()
    state = torch.tensor([[[0.01, 0, 0, 0]]])
    args = (world, Cost(world.action), state, TASK, torch.Generator().manual_seed(0))
    assert Joint(first(near=0.1), 1, 2).plan(*args).thoughts[0].steps.tolist() == [0]
    with pytest.raises(UserError, match="more than max_rollouts, 3"):
        Joint(first(), 4, 2, max_rollouts=3).plan(*args)
    with pytest.raises(UserError, match="needs lifted sub-goals"):
        Joint(Hierarchical(Gradient(), (), lifted=False))
    with pytest.raises(UserError, match="needs a start"):
        Joint(first(), 0)


class Windy(Twice):
    """The upper level in wind: its chance is the same for all starts of a state."""

    chances = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def latents(self, state, chance):
        self.seen.append(chance)
        return chance - 0.5

    def step(self, state, action, z=None):
        return super().step(state, action) + (0 if z is None else z[:, None])


def test_starts_are_compared_under_the_same_chance():
    world, model, search = Linear(), Windy(), Gradient(1, 2)
    upper = Upper(model, Cost(model.action), search, lambda states: states, 3, TASK.u)
    task = Task(TASK.goal, 2, TASK.u, risk=1.0, samples=2)
    planner = Joint(Hierarchical(search, (upper,)), starts=3, iterations=2)
    found = planner.plan(world, Cost(world.action), START[:, None], task, torch.Generator().manual_seed(0))
    last = model.seen[-1].unflatten(0, (2, 3, 2))  # states, starts, samples
    assert (last == last[:, :1]).all() and not (last[0] == last[1]).any()
    assert found.actions.shape == (2, 2, 2) and found.cost.isfinite().all()
