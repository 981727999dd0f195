"""Critics in known worlds: they predict what happens, and let a short plan find the way round a wall."""

import pytest
import torch
from known_worlds import Maze

from jepa_pretrain.agent.actor import Planning
from jepa_pretrain.agent.calibration import calibration, coverage
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import EnergyAfter, EnergyToCome, StepsToGo, ToGoal
from jepa_pretrain.agent.learning import Pairs, learn_energy, learn_steps
from jepa_pretrain.agent.memory import Memory, Moment
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.quasimetric import Quasimetric, learn_quasimetric
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decaying(environments: int, steps: int, noise: float, seed: int) -> Memory:
    """A world that halves its state in every step and adds noise; the energy is the state's first number."""
    memory, rng = Memory(steps), seeded(seed)
    state = torch.rand(environments, 1, 1, generator=rng) * 4
    for time in range(steps):
        memory.write(Moment(torch.full((environments,), time), state, torch.zeros(environments, 1), state[:, 0, 0]))
        state = state / 2 + noise * torch.randn(state.shape, generator=rng)
    return memory


@pytest.mark.parametrize(
    ("critic", "expected"),
    [
        (EnergyAfter(1, delay=2, hidden=32), lambda s: s / 4),
        (EnergyToCome(1, discount=0.5, steps=6, hidden=32), lambda s: s / 2 * (1 - 0.25**6) / 0.75),
    ],
    ids=["delay", "sum"],
)
def test_predicts_what_the_state_will_cost(critic, expected):
    torch.manual_seed(0)
    learn_energy(critic, decaying(256, 8, 0.02, seed=0), seeded(), steps=300)
    states = torch.linspace(0.2, 3.5, 20)
    torch.testing.assert_close(critic(states[:, None, None]), expected(states), atol=0.06, rtol=0.06)
    held_out, happened = critic.targets(decaying(256, 8, 0.02, seed=1))
    told = calibration(critic(held_out).detach(), happened)
    assert told.error < 0.03 and told.correlation > 0.98
    untrained = calibration(type(critic)(1)(held_out).detach(), happened)
    assert untrained.error > 5 * told.error
    assert "realised" in told.table()


def test_quantiles_are_covered_as_often_as_they_say():
    torch.manual_seed(0)
    critic = EnergyAfter(1, delay=1, quantiles=(0.1, 0.5, 0.9), hidden=32)
    learn_energy(critic, decaying(512, 6, 0.3, seed=0), seeded(), steps=400)
    states, happened = critic.targets(decaying(512, 6, 0.3, seed=1))
    torch.testing.assert_close(coverage(critic.quantiles(states), happened), critic.levels, atol=0.04, rtol=0)


def directions(count: int, rng: torch.Generator) -> torch.Tensor:
    """Steps as long as there are, in any direction, `(count, 2)`."""
    way = 2 * torch.rand(count, 2, generator=rng) - 1
    return Maze.STEP * way / way.abs().amax(1, keepdim=True)


def wandering(world: Maze, walks: int, steps: int) -> list[torch.Tensor]:
    """Random walks that keep their direction for a while."""
    rng = seeded()
    state, states = torch.rand(walks, 1, 2, generator=rng), []
    state[:, 0, 0] = torch.where(world.inside(*state[:, 0].unbind(1)), 0.9, state[:, 0, 0])
    heading = directions(walks, rng)
    for _ in range(steps):
        states.append(state)
        turn = torch.rand(walks, 1, generator=rng) < 0.25
        heading = torch.where(turn, directions(walks, rng), heading)
        state = world.step(state, heading)
    return list(torch.stack(states, 1))


def going(world: Maze, walks: int, steps: int) -> list[torch.Tensor]:
    """Someone who knows the way: straight to a place, round the wall's end where that is needed."""
    rng = seeded(1)
    state, place = (torch.rand(walks, 2, generator=rng) * torch.tensor([0.75, 0.3]) for _ in range(2))
    state[:, 1], place[:, 1] = (
        one[:, 1] + 0.7 * (torch.rand(walks, generator=rng) < 0.5) for one in (state, place)
    )  # below the wall, or above it
    states, state = [], state[:, None]
    for _ in range(steps):
        states.append(state)
        y, v = state[:, 0, 1], place[:, 1]
        round_it = torch.stack([torch.full_like(y, 0.8), torch.where(v > 0.5, 0.75, 0.25)], 1)
        far, beside = (y - v).abs() > 0.4, state[:, 0, 0] > 0.76
        aim = torch.where((far & ~beside)[:, None], torch.stack([torch.full_like(y, 0.8), y], 1), place)
        aim = torch.where((far & beside)[:, None], round_it, aim)
        state = world.step(state, (aim - state[:, 0]).clamp(-world.STEP, world.STEP))
    return list(torch.stack(states, 1))


@pytest.fixture(scope="module", params=["iql", "qrl"])
def taught(request) -> ToGoal:
    """A critic that saw people walk through the maze, some of them at random."""
    torch.manual_seed(0)
    walks = wandering(Maze(), 200, 60) + going(Maze(), 400, 20)
    if request.param == "qrl":
        critic = Quasimetric(2, size=16, components=4, hidden=64)
        learn_quasimetric(critic, walks, seeded(), steps=800, batch=256, rate=3e-3)
    else:
        critic = StepsToGo(2, discount=0.95, hidden=64)
        learn_steps(critic, walks, seeded(), steps=1000, batch=256, rate=3e-3, expectile=0.8, momentum=0.9)
    return critic


START = torch.tensor([[0.1, 0.2], [0.3, 0.1], [0.2, 0.25], [0.05, 0.05]])[:, None]
GOAL = torch.tensor([[0.1, 0.8], [0.3, 0.9], [0.2, 0.75], [0.4, 0.8]])[:, None]  # all beyond the wall


def walk(task: Task, critics: dict[str, torch.nn.Module], budget: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """The states passed when planning, `(B, budget + 1, N, D)`, and the steps to the goal, budget + 1 for never."""
    world = Maze()
    actor = Planning(world, Cost(world.action, critics), CEM(64, 4, 8))
    actor.begin(len(START))
    states = [START]
    for _ in range(budget):
        states.append(world.step(states[-1], actor.act(states[-1], task)))
    states = torch.stack(states, 1)
    near = (states - task.goal[:, None]).norm(dim=-1)[:, :, 0] < 0.1
    return states, torch.where(near.any(1), near.float().argmax(1), budget + 1)


def test_critic_shortens_the_horizon(taught):
    """Three steps ahead, distance leads into the wall and stays there; steps-to-go lead round it."""
    _, by_distance = walk(Task(GOAL, 3), {})
    _, by_critic = walk(Task(GOAL, 3, u={}, v={"steps": 1.0}), {"steps": taught})
    assert (by_distance == 41).all()
    assert (by_critic <= 30).all(), by_critic


def test_critic_is_calibrated_on_the_way(taught):
    """What it says at each state of the way, against the steps that were still to come."""
    task = Task(GOAL, 3, u={}, v={"steps": 1.0})
    states, steps = walk(task, {"steps": taught})
    said, came = [], []
    for row, count in enumerate(steps.tolist()):
        value = taught.between(states[row, :count], GOAL[row : row + 1]).detach()
        said.append(taught.steps(value))
        came.append(torch.arange(count, 0, -1).float())
    told = calibration(torch.cat(said), torch.cat(came), bins=5)
    assert told.correlation > 0.9 and told.error < 3, (
        told
    )  # of ways of up to 11 steps; it says too much, not too little


def test_the_parts_of_the_first_layer_add_up_to_what_it_reads():
    """State, goal and their difference side by side, for every step of every way."""
    critic = StepsToGo(3, tokens=2, hidden=8)
    critic.centre.copy_(torch.randn(6))
    critic.scale.fill_(2.0)
    states, goal = torch.randn(4, 5, 2, 3), torch.randn(4, 2, 3)
    s, g = ((one.flatten(-2) - critic.centre) / 2 for one in (states, goal[:, None].expand_as(states)))
    read = torch.nn.functional.softplus(critic.net(torch.cat([s, g, s - g], -1)))[..., 0]  # (4, 5)
    torch.testing.assert_close(critic.along(states, goal), read)
    torch.testing.assert_close(critic.along(states, goal[:1])[0], read[0])
    torch.testing.assert_close(critic.between(states[:, 2], goal), read[:, 2])


def test_a_quasimetric_is_nought_at_the_goal_and_obeys_the_triangle():
    torch.manual_seed(0)
    critic = Quasimetric(3, tokens=2, size=8, components=2, hidden=16)
    a, b, c = torch.randn(3, 50, 2, 3)
    assert critic.between(a, a).abs().max() < 1e-5
    assert (critic.between(a, b) + critic.between(b, c) >= critic.between(a, c) - 1e-5).all()
    assert not torch.allclose(critic.between(a, b), critic.between(b, a))
    torch.testing.assert_close(
        critic.along(torch.stack([a, b], 1), c), torch.stack([critic.between(a, c), critic.between(b, c)], 1)
    )


def test_a_quasimetric_learns_what_cannot_be_undone():
    """A circle of ten places that is walked in one direction: next door behind is nine steps away."""
    torch.manual_seed(0)
    angle = torch.arange(60) * 2 * torch.pi / 10
    walk = torch.stack([angle.cos(), angle.sin()], -1)[:, None]  # (60, 1, 2)
    critic = Quasimetric(2, size=32, components=8, hidden=64)
    learn_quasimetric(critic, [walk], seeded(), steps=800, batch=128, rate=3e-3)
    with torch.no_grad():
        onward = torch.stack([critic.between(walk[:1], walk[n][None])[0] for n in range(1, 10)])
    torch.testing.assert_close(onward, torch.arange(1.0, 10), atol=0.15, rtol=0.2)


def test_goals_at_rest_are_reached_by_who_comes_past():
    """States that tell a speed, goals that do not: from each moment to the same place at rest it is no way at all."""
    torch.manual_seed(0)
    places = torch.rand(40, 1, 1, generator=seeded()) + torch.linspace(0, 4, 21)[:, None]  # (40, 21, 1)
    moving = [torch.stack([one, torch.ones_like(one)], -1) for one in places]
    resting = [torch.stack([one, torch.zeros_like(one)], -1) for one in places]
    critic = Quasimetric(2, size=16, components=4, hidden=64)
    learn_quasimetric(critic, moving, seeded(), steps=500, batch=128, rate=3e-3, goals=resting)
    with torch.no_grad():
        assert critic.between(moving[0], resting[0]).mean() < 0.3
        assert critic.between(moving[0][:1], resting[0][10:11]).item() == pytest.approx(10, rel=0.2)


def test_steps_and_their_discounted_value_are_inverse():
    critic, steps = StepsToGo(2, discount=0.9), torch.arange(20.0)
    torch.testing.assert_close(critic.steps(critic.discounted(steps)), steps, atol=1e-3, rtol=1e-3)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="this memory is empty"):
        learn_energy(EnergyAfter(1), Memory(5), seeded())
    with pytest.raises(UserError, match="episodes of two states or more"):
        learn_steps(StepsToGo(2), [torch.zeros(1, 1, 2)], seeded())
    with pytest.raises(UserError, match="episodes of two states or more"):
        learn_quasimetric(Quasimetric(2), [torch.zeros(1, 1, 2)], seeded())
    with pytest.raises(UserError, match="64 numbers cannot be shared out to 7"):
        Quasimetric(2, components=7)
    with pytest.raises(UserError, match="levels in 0"):
        EnergyAfter(1, quantiles=(1.5,))
    with pytest.raises(UserError, match="discount between 0 and 1"):
        StepsToGo(1, discount=1.0)
    with pytest.raises(UserError, match="as many outcomes"):
        calibration(torch.zeros(3), torch.zeros(4))


def test_goals_are_of_the_same_episode_where_that_is_asked_for():
    pairs = Pairs.of([torch.full((length, 1, 1), float(number)) for number, length in enumerate((5, 1, 9, 3))])
    chosen = torch.randint(len(pairs.starts), (600,), generator=seeded())
    here, goal, known = pairs.draw(chosen, seeded(), within=True)
    assert (pairs.states[here] == pairs.states[goal]).all()
    behind = goal < here
    assert 0.1 < behind.float().mean() < 0.4 and torch.isinf(known[behind]).all()
    assert (known[~behind] == (goal - here)[~behind]).all()
    here, goal, _ = pairs.draw(chosen, seeded())
    assert (pairs.states[here] != pairs.states[goal]).float().mean() > 0.2
