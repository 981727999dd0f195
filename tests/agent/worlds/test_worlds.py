"""The hard worlds: walls hold, doors shut, chance is fair, and one episode equals many."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from jepa_pretrain.agent import worlds
from jepa_pretrain.agent.behaviours import behaviour
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.worlds import fork, four_rooms
from jepa_pretrain.contracts import UserError

ROOMS, FORK = "jepa_pretrain/FourRooms-v0", "jepa_pretrain/Fork-v0"
assert worlds


def walk(name: str, who: str, count: int, steps: int, seed: int = 0, **settings) -> np.ndarray:
    """Steps until each goal is reached; infinite where it never is."""
    env = gym.make_vec(name, num_envs=count, **settings)
    seen, _ = env.reset(seed=seed)
    rngs = [np.random.default_rng(n) for n in range(count)]
    acting = behaviour(who, name, None)
    acting.begin()
    taken = np.full(count, np.inf)
    for step in range(1, steps + 1):
        action = acting.act(Shown(torch.from_numpy(seen)), rngs)
        seen, _, reached, _, _ = env.step(action.numpy())
        taken = np.where(reached & np.isinf(taken), step, taken)
    return taken


class Shown:
    def __init__(self, state: torch.Tensor) -> None:
        self.state = state


def pushed(start: tuple[float, float], action: tuple[float, float], is_open: bool) -> np.ndarray:
    """Where one ends that pushes in one direction for a hundred steps."""
    env = gym.make(ROOMS, distractor=False)
    far = {"state": start, "target_state": (0.9, 0.9), "open": [is_open] * 4}
    seen, _ = env.reset(seed=0, options=far)
    for _ in range(100):
        seen, *_ = env.step(np.array(action))
    return seen[:2]


def test_walls_hold_and_doors_open_and_shut():
    beside = 0.5 - four_rooms.WALL - four_rooms.RADIUS
    assert pushed((0.2, 0.1), (1, 0), True)[0] == pytest.approx(beside, abs=0.021)  # no door there
    assert pushed((0.2, 0.25), (1, 0), False)[0] == pytest.approx(beside, abs=0.021)  # a shut one
    assert pushed((0.2, 0.25), (1, 0), True)[0] > 0.9
    assert pushed((0.25, 0.2), (0, 1), True)[1] > 0.9
    assert pushed((0.2, 0.1), (-1, -1), True) == pytest.approx([four_rooms.RADIUS] * 2)


def test_the_expert_arrives_whichever_door_is_shut_and_wherever_doors_are():
    taken = walk(ROOMS, "expert", 64, 120, shut=1.0, moving_doors=True)
    assert (taken < 100).all() and taken.mean() > 30


def test_the_straight_way_is_no_way():
    env = gym.make_vec(ROOMS, num_envs=64)
    seen, _ = env.reset(seed=0)
    arrived = np.zeros(64, dtype=bool)
    for _ in range(120):
        gap = seen[:, 2:4] - seen[:, :2]
        seen, _, reached, _, _ = env.step(gap / np.abs(gap).max(1, keepdims=True))
        arrived |= reached
    assert arrived.mean() < 0.2


def test_the_explorer_sees_all_rooms_and_bumps_into_walls():
    env = gym.make_vec(ROOMS, num_envs=8, shut=0.0)
    seen, _ = env.reset(seed=0)
    acting, rngs = behaviour("explorer", ROOMS, None), [np.random.default_rng(n) for n in range(8)]
    acting.begin()
    rooms, stuck = set(), 0
    for _ in range(300):
        action = acting.act(Shown(torch.from_numpy(seen)), rngs).numpy()
        before = seen
        seen, *_ = env.step(action)
        moved = np.abs(seen[:, :2] - before[:, :2]).max(1)
        stuck += int(((moved < 0.001) & (np.abs(action).max(1) > 0.5)).sum())
        rooms |= set(four_rooms.room(seen[:, :2]).tolist())
    assert rooms == {0, 1, 2, 3} and stuck > 5


def test_the_distractor_moves_teleports_and_changes_nothing():
    env = gym.make_vec(ROOMS, num_envs=32)
    one, _ = env.reset(seed=3)
    other = gym.make_vec(ROOMS, num_envs=32, distractor=False)
    without, _ = other.reset(seed=3)
    places = []
    for step in range(100):
        action = np.full((32, 2), [0.3, -0.7]) * (1 if step % 20 < 10 else -1)
        one, *_ = env.step(action)
        without, *_ = other.step(action)
        places.append(one[:, 12:].copy())
    assert np.array_equal(one[:, :2], without[:, :2])
    jumps = np.linalg.norm(np.diff(places, axis=0), axis=2) > 0.15
    assert 0.5 / 35 < jumps.mean() < 1.2 / 35  # some teleports are short
    assert not np.array_equal(env.render()[0], other.render()[0])


@pytest.mark.parametrize("name", [ROOMS, FORK])
def test_one_episode_equals_its_row_among_many(name):
    many = gym.make_vec(name, num_envs=3)
    seen, _ = many.reset(seed=5)
    single = gym.make(name)
    own, _ = single.reset(seed=6)
    assert np.array_equal(seen[1], own)
    for step in range(30):
        action = np.array([np.cos(step / 5), np.sin(step / 7)])
        seen, *_ = many.step(np.tile(action, (3, 1)))
        own, *_ = single.step(action)
        assert np.array_equal(seen[1], own)
    assert np.array_equal(many.render()[1], single.render()) and single.render().shape == (64, 64, 3)


def test_the_pictures_show_agent_walls_and_doors():
    env = gym.make(ROOMS, size=100, distractor=False)
    env.reset(seed=0, options={"state": (0.2, 0.8), "open": [True, False, True, True]})
    picture = env.render()
    assert tuple(picture[80, 20]) == four_rooms.COLOURS["agent"]
    assert tuple(picture[5, 50]) == (0, 0, 0) and tuple(picture[25, 50]) == (255, 255, 255)
    assert tuple(picture[75, 50]) == four_rooms.COLOURS["shut"] and tuple(picture[50, 50]) == (0, 0, 0)


def test_the_bridge_is_quicker_on_average_and_the_way_around_is_sure():
    bold, careful = walk(FORK, "bold", 400, 80), walk(FORK, "careful", 400, 80)
    assert bold.mean() < careful.mean() - 3 and careful.std() < 2 < bold.std()
    assert (careful <= 35).all() and 0.25 < (bold > 35).mean() < 0.35  # three in ten fall
    assert (walk(FORK, "bold", 50, 80, risk=0.0) <= 20).all()


def test_the_explorer_of_the_fork_goes_everywhere_on_every_way():
    environments = Environments("jepa_pretrain/ForkAnywhere-v0", 48, 32)
    seen, rngs = environments.reset(list(range(48))), [np.random.default_rng(n) for n in range(48)]
    acting = behaviour("explorer", environments.name, environments.actions)
    acting.begin()
    assert (seen.state[:, :2] - seen.state[:, 2:4]).norm(dim=1).min() > 0.5
    places, goals, strays = [seen.state], [], []
    for _ in range(80):
        seen = environments.step(acting.act(seen, rngs))
        places.append(seen.state)
        goals.append(seen.state[:, 2:4])
        strays.append(torch.from_numpy(acting._stray.copy()))
    environments.close()
    assert seen.running.all(), "nobody ends early: the lucky ones would be missing in long stretches"
    at, renewed = torch.stack(places), (torch.stack(goals)[1:] != torch.stack(goals)[:-1]).any(2)
    straying = torch.stack(strays).any(0)
    assert (renewed.sum(0)[~straying] >= 1).float().mean() > 0.8, "one goal after another"
    assert ((at[1:-1, :, 4] - at[2:, :, 4])[renewed] >= 0).all() and (at[2:, :, 4][renewed] == 0).all()
    between = (at[..., 0] - 0.5).abs() < 0.05
    for low, high in ((0.03, 0.12), (0.44, 0.56), (0.55, 0.74), (0.88, 0.97)):  # above, bridge, pit, below
        assert (between & (at[..., 1] > low) & (at[..., 1] < high)).any(0).sum() >= 3


def test_the_gust_blows_once():
    world = fork.Chasm(1, risk=1.0)
    world.reset(np.arange(1), [0], [{"state": (0.44, 0.5)}])
    falls = 0
    for _ in range(200):
        before = world.agent.copy()
        way = fork.bold(world.state()) - world.agent
        world.step(way / max(np.abs(way).max(), 0.05))
        falls += int(world.agent[0, 1] - before[0, 1] > 0.1)
    assert falls == 1 and world.reached()[0]


def test_mirrored_and_stronger_motors():
    plain, changed = gym.make(FORK), gym.make(FORK, motor=(-1.0, 2.0))
    start = {"state": (0.1, 0.1)}
    plain.reset(seed=0, options=start)
    changed.reset(seed=0, options=start)
    one, other = plain.step(np.array([-0.5, 0.5]))[0], changed.step(np.array([0.5, 0.25]))[0]
    assert one == pytest.approx(other)


def test_an_agent_sees_them_through_its_own_environments():
    environments = Environments(ROOMS, 2, size=32)
    seen = environments.reset([1, 2])
    assert seen.state.shape == (2, 14) and seen.proprio.shape == (2, 2)
    assert environments.pictures().shape == (2, 3, 32, 32)
    acting = behaviour("expert", ROOMS, environments.actions)
    acting.begin()
    for _ in range(120):
        seen = environments.step(acting.act(seen, [np.random.default_rng(0)] * 2))
    assert not seen.running.any()
    environments.close()


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="target_state is a place"):
        gym.make(FORK).reset(options={"target_state": (3.0, 0.5)})
    with pytest.raises(TypeError, match="shot"):
        gym.make(ROOMS, shot=0.5)
