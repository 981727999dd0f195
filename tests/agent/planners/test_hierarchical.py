"""Planning on several time scales: exact where it can be solved, and reaching what flat planning cannot afford."""

import pytest
import torch
from known_worlds import Known, Linear

from jepa_pretrain.agent.actor import Planning
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.hierarchical import Hierarchical, Upper
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.planners.problem import Plan
from jepa_pretrain.agent.recorded import Recorded
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous, Discrete
from jepa_pretrain.contracts import UserError

EFFORT = 0.1


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def same(states: torch.Tensor) -> torch.Tensor:
    """The lift of levels that share one latent space."""
    return states


# An exactly solvable problem of two levels


class Twice(Known):
    """Two steps of the linear world as one, in other coordinates: s' = M s, a = both actions."""

    M = torch.tensor([[1.0, 0.5, 0, 0], [0, 1, 0, 0.3], [0.2, 0, 0.5, 0], [0, 0, 0, 0.5]])

    def __init__(self) -> None:
        super().__init__(4, Continuous(torch.full((4,), -4.0), torch.full((4,), 4.0)))
        self.below = Linear()

    def step(self, state, action, z=None):
        state = state @ torch.linalg.inv(self.M).T
        for part in action.split(2, dim=1):
            state = self.below.step(state, part)
        return state @ self.M.T


def lift(states: torch.Tensor) -> torch.Tensor:
    return states @ Twice.M.T


def solved(a, b, c, start, target, length):
    """The plan that minimises sum |c x_i - target|^2 / 4 + EFFORT mean(u_i^2), as a least-squares problem."""
    a, b, c = a.double(), b.double(), c.double()
    actions, plans = b.shape[1], []
    for x, wanted in zip(start.double(), target.double(), strict=True):
        free, rows, right = x, [], []
        effect = torch.zeros(len(a), length * actions).double()
        for i in range(length):
            free, effect = a @ free, a @ effect
            effect[:, i * actions : (i + 1) * actions] += b
            rows.append(c @ effect / 2)
            right.append((wanted - c @ free) / 2)
        rows.append((EFFORT / actions) ** 0.5 * torch.eye(length * actions).double())
        right.append(torch.zeros(length * actions).double())
        found = torch.linalg.lstsq(torch.cat(rows), torch.cat(right)[:, None]).solution
        plans.append(found.view(length, actions))
    return torch.stack(plans).float()


def test_two_levels_find_the_solution_of_the_lifted_problem():
    world, upper, m = Linear(), Twice(), Twice.M
    start = torch.tensor([[2.0, -1, 0, 0], [-1, 0.5, 1, -1]])
    u = {"goal": 1.0, "effort": EFFORT}
    search = Gradient(starts=2, iterations=150, rate=0.05)
    found = Hierarchical(search, (Upper(upper, Cost(upper.action), search, lift, 3, u),)).plan(
        world, Cost(world.action), start[:, None], Task(torch.zeros(1, 1, 4), 2, u), seeded()
    )
    inverse = torch.linalg.inv(m)
    twice_a = m @ world.a @ world.a @ inverse
    twice_b = m @ torch.cat([world.a @ world.b, world.b], 1)
    macros = solved(twice_a, twice_b, torch.eye(4), start @ m.T, torch.zeros(2, 4), 3)
    subgoal = start @ m.T @ twice_a.T + macros[:, 0] @ twice_b.T
    actions = solved(world.a, world.b, m, start, subgoal, 2)
    (thought,) = found.thoughts
    assert thought.steps.tolist() == [3, 3]
    torch.testing.assert_close(thought.actions, macros, atol=0.03, rtol=0.02)
    torch.testing.assert_close(thought.states[:, 0, 0], subgoal, atol=0.02, rtol=0.02)
    torch.testing.assert_close(found.actions, actions, atol=0.03, rtol=0.02)
    own = solved(world.a, world.b, torch.eye(4), start, torch.zeros(2, 4), 2)
    assert (own - actions).abs().max() > 0.3  # without the level above it would do something else


def test_a_sub_goal_may_be_looked_up_in_the_latent_space_below():
    world, upper = Linear(), Twice()
    start, search = torch.tensor([[[2.0, -1, 0, 0]]]), Gradient(1, 150, rate=0.05)
    level = Upper(upper, Cost(upper.action), search, lift, 3, {"goal": 1.0, "effort": EFFORT})
    task = Task(torch.zeros(1, 1, 4), 2, {"goal": 1.0, "effort": EFFORT})
    exact = Hierarchical(search, (level,)).plan(world, Cost(world.action), start, task, seeded()).thoughts[0]
    true = exact.states[:, 0] @ torch.linalg.inv(Twice.M).T  # (1, 1, 4) the sub-goal below
    banked = Upper(upper, Cost(upper.action), search, lift, 3, level.u, bank=torch.cat([true, true + 3, true - 3]))
    found = Hierarchical(search, (banked,), lifted=False).plan(world, Cost(world.action), start, task, seeded())
    expected = solved(world.a, world.b, torch.eye(4), start[:, 0], true[:, 0], 2)
    torch.testing.assert_close(found.actions, expected, atol=0.03, rtol=0.02)
    with pytest.raises(UserError, match="need a bank"):
        Hierarchical(search, (level,), lifted=False)


# A pocket that opens away from the goal, and a long way round


class Pocket(Known):
    """9 x 36 cells. Walls in rows 1 and 7 and in column 12 enclose a room that is open to the left; a move is repeated.

    `steps` counts what was asked of the model: environment steps predicted, whatever their number in one of its own.
    """

    MOVES = torch.tensor([[0.0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
    LAST = torch.tensor([8.0, 35.0])

    def __init__(self, stride: int = 1) -> None:
        super().__init__(2, Discrete.one_hot(5))
        self.stride, self.steps = stride, 0

    def step(self, state, action, z=None):
        self.steps += len(state) * self.stride
        for _ in range(self.stride):
            after = (state + (action @ self.MOVES)[:, None]).clamp(min=0).minimum(self.LAST)
            row, column = after[..., 0], after[..., 1]
            long = ((row == 1) | (row == 7)) & (column >= 3) & (column <= 12)
            short = (column == 12) & (row >= 1) & (row <= 7)
            state = torch.where((long | short)[..., None], state, after)
        return state


START, GOAL = torch.tensor([[[4.0, 8.0]]]), torch.tensor([[[4.0, 35.0]]])


def level(stride: int, horizon: int, width: int, **settings) -> Upper:
    model = Pocket(stride)
    return Upper(model, Cost(model.action), Beam(width), same, horizon, near=stride**2 / 2, **settings)


def walk(planner: Planner, horizon: int) -> tuple[bool, int, list[Plan]]:
    """Whether it arrives, the most that one decision asked of all models together, and every plan.

    Nothing here is drawn and no plan is kept, so that whoever stands still once does so for ever.
    """
    model, world, state, most, plans = Pocket(), Pocket(), START, 0, []
    actor = Planning(model, Cost(model.action), planner, warm=False)
    models = [model, *(one.model for one in planner.levels)] if isinstance(planner, Hierarchical) else [model]
    while not torch.equal(state, GOAL) and len(plans) < 80:
        spent = sum(one.steps for one in models)
        before, state = state, world.step(state, actor.act(state, Task(GOAL, horizon)))
        most, plans = max(most, sum(one.steps for one in models) - spent), [*plans, actor.found]
        if torch.equal(before, state):
            return False, most, plans
    return torch.equal(state, GOAL), most, plans


@pytest.mark.parametrize("levels", [[(6, 8, 24)], [(3, 3, 8), (6, 8, 24)]], ids=["two", "three"])
def test_only_the_hierarchy_reaches_for_what_it_costs(levels):
    reached, spent, plans = walk(Hierarchical(Beam(8), tuple(level(*one) for one in levels)), levels[0][0])
    assert reached
    steps = torch.cat([torch.stack([one.steps for one in plan.thoughts], 1) for plan in plans])  # (moves, levels)
    assert (steps[0] > 0).all() and (steps[-1] == 0).all()  # in the end nobody above has anything to add
    assert steps[0, -1] > steps[len(plans) // 2, -1] > 0  # and on the way the top has less and less left to go
    if len(levels) > 1:
        return
    for horizon in (
        6,
        12,
        20,
        28,
        40,
        48,
    ):  # short ones see no way out, long ones have no room for enough partial plans
        assert not walk(Beam(spent // (5 * horizon)), horizon)[0], horizon


def test_environments_think_for_themselves_and_near_ones_not_at_all():
    """One far, one a step of the upper level away, one there: each as if it were alone."""
    starts = torch.tensor([[[4.0, 8.0]], [[4.0, 31.0]], [[4.0, 35.0]]])
    upper = level(6, 8, 24, pace=18.0)  # 6 cells, squared, over 2 numbers
    planner, model, task = Hierarchical(Beam(8), (upper,)), Pocket(), Task(GOAL, 6)
    found = planner.plan(model, Cost(model.action), starts, task, seeded())
    assert found.thoughts[0].steps.tolist() == [7, 0, 0]
    assert found.thoughts[0].states[1:].isnan().all() and found.thoughts[0].states[0, :7].isfinite().all()
    alone = [planner.plan(model, Cost(model.action), one[None], task, seeded()) for one in starts]
    assert torch.equal(found.actions, torch.cat([one.actions for one in alone]))
    upper.model.steps = 0
    planner.plan(model, Cost(model.action), starts[1:], task, seeded())
    assert upper.model.steps == 0  # what has nothing to add does not search either
    for none_above in (Beam(8), Hierarchical(Beam(8))):
        flat = none_above.plan(model, Cost(model.action), starts, task, seeded()).actions
        assert torch.equal(flat[1:], found.actions[1:]) and not torch.equal(flat[0], found.actions[0])


def test_an_agent_takes_it_as_any_planner_and_keeps_what_it_thought():
    class Seen(Pocket):
        def encode(self, frames):
            return frames[:, 0, :1, :2].float()

    model = Seen()
    agent = Agent(model, Cost(model.action), Hierarchical(Beam(8), (level(6, 8, 24),)), Task(GOAL, 6), watched=True)
    goal, now = (torch.zeros(1, 3, 2, 2, dtype=torch.uint8) for _ in range(2))
    goal[0, 0, 0], now[0, 0, 0] = torch.tensor([4, 35]), torch.tensor([4, 8])
    agent.pursue(goal)
    assert agent.act(now).tolist() == [[0, 0, 0, 1, 0]]  # to the left, away from the goal
    assert agent.last.plan.thoughts[0].states[0, 0].tolist() == [[4, 2]]


class Jump(Known):
    """Wherever the action says."""

    def step(self, state, action, z=None):
        return state + action[:, None]


def test_macro_actions_are_kept_near_recorded_ones():
    along = torch.linspace(-1, 1, 101)
    recorded = Recorded.of(torch.stack([along, along.square()], 1), most=51)
    assert recorded.distance(recorded.actions[None]).abs().max() == 0
    space = recorded.space(2.0)
    torch.testing.assert_close((space.low + space.high) / 2, recorded.mean)
    torch.testing.assert_close(space.high - space.low, 4 * recorded.std)
    model, start, goal = Jump(2, space), torch.zeros(1, 1, 2), torch.tensor([[[0.6, -0.2]]])
    free, kept = (
        CEM(256, 6, 16).plan(
            model, Cost(space, recorded=recorded), start, Task(goal, 1, {"goal": 1.0, "recorded": weight}), seeded()
        )
        for weight in (0.0, 10.0)
    )
    assert recorded.distance(free.actions).item() > 0.1 > 0.02 > recorded.distance(kept.actions).item()
    with pytest.raises(UserError, match="needs recorded actions"):
        Cost(space).intrinsic(start[:, None], free.actions, Task(goal, 1, {"recorded": 1.0}))
    with pytest.raises(UserError, match="two finite recorded actions"):
        Recorded.of(torch.zeros(1, 2))


def test_mistakes_are_named():
    with pytest.raises(UserError, match="horizon >= 1 and a pace > 0"):
        level(6, 0, 8)
    with pytest.raises(UserError, match="horizon >= 1 and a pace > 0"):
        level(6, 2, 8, pace=0.0)
    model = Pocket()
    with pytest.raises(UserError, match="Hierarchical: a goal of this world model"):
        Hierarchical(Beam(8)).plan(model, Cost(model.action), START, Task(torch.zeros(1, 1, 5)), seeded())
