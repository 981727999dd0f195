"""Plans under chance: a fork whose outcomes can be counted, so that mean and deviation of every plan are known."""

import itertools

import pytest
import torch
from known_worlds import Floor, Known, Linear

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.guardrails import HalfSpace
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.mcts import MCTS
from jepa_pretrain.agent.planners.problem import Problem
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.uncertainty import Stochastic, draw, weigh
from jepa_pretrain.agent.world_model import Continuous, Discrete, Ensemble, WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models import latent


class Fork(Known, torch.nn.Module):
    """The way that is left, s >= 0; the bold step goes 2, but may throw one back by `fall`; the safe one goes 1.

    The prior depends on the state: it is only beyond `edge` that the bold step is a risk.
    """

    chances = 1

    def __init__(self, fall: float, odds: float = 0.1, edge: float = 4.0, discrete: bool = True) -> None:
        torch.nn.Module.__init__(self)
        action = Discrete.one_hot(2) if discrete else Continuous(torch.tensor([-1.0]), torch.tensor([1.0]))
        Known.__init__(self, 1, action)
        self.fall, self.odds, self.edge, self.discrete = fall, odds, edge, discrete

    def latents(self, state, chance):
        return (chance < self.odds * (state[:, 0] > self.edge)).float()

    def step(self, state, action, z=None):
        z = torch.zeros_like(state[:, 0]) if z is None else z
        bold = action[:, :1] if self.discrete else (action > 0).float()
        return (state - (bold * (2 - z * (2 + self.fall)) + (1 - bold))[:, None]).clamp_min(0)


START, GOAL = torch.full((1, 1, 1), 5.0), torch.zeros(1, 1, 1)
BOLD, SAFE = torch.tensor([1.0, 0]), torch.tensor([0.0, 1])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def outcomes(world: Fork, plan: torch.Tensor) -> tuple[float, float]:
    """Mean and deviation of a plan's cost from the tree of all its futures."""
    mean = square = 0.0
    for thrown in itertools.product((0, 1), repeat=len(plan)):
        state, cost, chance = START, 0.0, 1.0
        for action, z in zip(plan, thrown, strict=True):
            odds = world.odds * float(state > world.edge)
            chance *= odds if z else 1 - odds
            state = world.step(state, action[None], torch.tensor([[float(z)]]))
            cost += float(state) ** 2
        mean, square = mean + chance * cost, square + chance * cost**2
    return mean, max(square - mean**2, 0.0) ** 0.5


def test_sampled_mean_and_deviation_are_the_analytic_ones():
    world, plans = Fork(2.0), torch.stack([torch.stack(one) for one in itertools.product((BOLD, SAFE), repeat=3)])
    task = Task(GOAL, 3, samples=20000)
    assert isinstance(world, Stochastic) and isinstance(world, WorldModel) and not isinstance(Floor(), Stochastic)
    chance = draw(world, task, START, seeded())
    mean, averse = (
        Problem(world, Cost(world.action), START, Task(GOAL, 3, risk=risk, samples=20000), "test", 40000, chance)
        .score(plans[None])
        .cost[0]
        for risk in (0.0, 2.0)
    )
    expected = torch.tensor([outcomes(world, plan) for plan in plans])
    assert expected[:, 1].max() > 20 and expected[-1, 1] < 1e-3  # the bold one in doubt, the safe one certain
    torch.testing.assert_close(mean, expected[:, 0], rtol=0.03, atol=0.01)
    torch.testing.assert_close((averse - mean) / 2, expected[:, 1], rtol=0.03, atol=0.01)


class Blind(Known):
    """The same world without its latent variable: nothing but the likeliest future."""

    def __init__(self, world: Fork) -> None:
        super().__init__(1, world.action)
        self.world = world

    def step(self, state, action, z=None):
        return self.world.step(state, action)


@pytest.mark.parametrize("discrete", [True, False], ids=["MCTS", "CEM"])
def test_only_sampling_finds_the_safe_action_and_risk_is_one_number(discrete):
    planner = MCTS(32, 2) if discrete else CEM(64, 4, 8)

    def chosen(fall: float, risk: float = 0.0, blind: bool = False) -> str:
        world = Fork(fall, discrete=discrete)
        model = Blind(world) if blind else world
        found = planner.plan(model, Cost(model.action), START, Task(GOAL, 3, risk=risk, samples=256), seeded())
        first = found.actions[0, 0, 0]
        return "bold" if first > (0.5 if discrete else 0) else "safe"

    assert chosen(8.0, blind=True) == "bold"  # the likeliest future says nothing of the fall
    assert chosen(8.0) == "safe"  # deep enough to count in the mean
    assert chosen(1.0) == "bold" and chosen(1.0, risk=1.0) == "safe"


def test_samples_of_chance_are_spread_evenly():
    """Eight futures fall twice where the odds are a quarter, whatever the seed."""
    world, task = Fork(2.0, odds=0.25), Task(GOAL, 3, samples=8)
    chance = draw(world, task, START.expand(50, 1, 1), seeded())
    assert ((chance < world.odds).sum(1) == 2).all() and chance.unique().numel() == chance.numel()
    assert not torch.equal(chance[:, :, 0].argsort(1), chance[:, :, 1].argsort(1)), "each step by itself"


def test_chance_is_held_along_the_branch_and_the_same_for_every_plan():
    world, task = Fork(2.0), Task(GOAL, 3, risk=1.0, samples=5)
    problem = Problem(world, Cost(world.action), START, task, "test", 64, draw(world, task, START, seeded()))
    same = torch.stack([BOLD, BOLD, SAFE]).expand(1, 9, 3, 2)
    assert problem.score(same).cost.unique().numel() == 1
    other = Problem(world, Cost(world.action), START, task, "test", 64, draw(world, task, START, seeded()))
    assert torch.equal(other.score(same).cost, problem.score(same).cost)
    two = torch.cat([problem.chance, torch.full_like(problem.chance, 0.01)])
    both = Problem(world, Cost(world.action), START.expand(2, 1, 1), task, "test", 64, two)
    rows = both.of(torch.tensor([1, 0])).score(same.expand(2, -1, -1, -1)).cost
    assert rows[1, 0] == problem.score(same).cost[0, 0] != rows[0, 0]  # each environment has its own


def test_members_count_like_samples_and_all_fit_into_the_pieces():
    sizes = []

    class Counting(Fork):
        def step(self, state, action, z=None):
            sizes.append(len(state))
            return super().step(state, action, z)

    model, plan = Ensemble([Counting(0.0), Counting(6.0)]), torch.stack([BOLD, SAFE, SAFE])
    task = Task(GOAL, 3, risk=1.0, samples=4)
    chance = draw(model, task, START, seeded())
    costs = [
        float(one.step(START, BOLD[None], z[None])) for one in (model.models) for z in torch.tensor([[0.0], [1.0]])
    ]
    assert costs == [3.0, 5.0, 3.0, 11.0]
    problem = Problem(model, Cost(model.action), START, task, "test", 17, chance)
    sizes.clear()
    found = problem.score(plan.expand(1, 5, 3, 2)).cost
    assert max(sizes) == 2 * 4  # two plans of eight futures fit into 17; a member rolls out half of them
    alone = [
        Problem(one, Cost(one.action), START, Task(GOAL, 3, samples=4), "test", 64, chance) for one in model.models
    ]
    means = torch.cat([one.score(plan.expand(1, 1, 3, 2)).cost[:, 0] for one in alone])
    neutral = Problem(model, Cost(model.action), START, Task(GOAL, 3, samples=4), "test", 64, chance)
    torch.testing.assert_close(neutral.score(plan.expand(1, 1, 3, 2)).cost[0, 0], means.mean())
    assert found[0, 0] > means.mean()
    with pytest.raises(UserError, match="max_rollouts must be 8 or more, the futures of a plan"):
        CEM(8, 1, 2, max_rollouts=7).plan(model, Cost(model.action), START, task, seeded())


def test_one_future_that_violates_is_enough():
    world, rail = Fork(8.0), HalfSpace(torch.ones(1), limit=6.0, weight=0.0)
    found = MCTS(32, 2).plan(
        world, Cost(world.action), START, Task(GOAL, 2, {"goal": 0.0}, guardrails=(rail,), samples=64), seeded()
    )
    assert found.safe and found.actions[0, 0, 1] == 1


def test_gradients_pass_through_the_deviation_even_where_there_is_none():
    world = Linear()
    task = Task(torch.zeros(1, 1, 4), 4, risk=3.0)
    twins = Ensemble([Twin(), Twin()])
    start = torch.tensor([[[2.0, -1, 0, 0]]])
    one, two = (Gradient(2, 20).plan(m, Cost(m.action), start, task, seeded()) for m in (world, twins))
    torch.testing.assert_close(one.cost, two.cost, atol=1e-4, rtol=1e-4)


class Twin(torch.nn.Module, Linear):
    """A linear world as a member of an ensemble."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        Linear.__init__(self)


@pytest.mark.parametrize("kind", [latent.Discrete(4, 3), latent.Gaussian(4, 3), latent.Sparse(4, 3)])
def test_chance_becomes_the_same_distribution_as_a_draw(kind):
    torch.manual_seed(0)
    before = torch.randn(1, 1, 4).expand(20000, 1, 4)
    with torch.no_grad():
        free, made = kind.draw(before), kind.draw(before, torch.rand(20000, 3))
        again = [kind.draw(before[:8], torch.full((8, 3), 0.3)) for _ in range(2)]
    assert torch.equal(*again)
    torch.testing.assert_close(free.mean(0), made.mean(0), atol=0.05, rtol=0.05)
    torch.testing.assert_close(free.std(0), made.std(0), atol=0.05, rtol=0.05)
    assert weigh(torch.tensor([[1.0, 3.0]]), 2.0).tolist() == [4.0]


def test_mistakes_are_named():
    world = Fork(1.0)
    with pytest.raises(UserError, match="Beam follows one future"):
        Beam().plan(world, Cost(world.action), START, Task(GOAL, 3), seeded())
    for wrong in ({"risk": -1.0}, {"samples": 0}, {"risk": float("nan")}):
        with pytest.raises(UserError, match="risk >= 0 and 1 sample or more"):
            Task(GOAL, 3, **wrong)
