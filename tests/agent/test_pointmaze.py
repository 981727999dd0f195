"""PointMaze as an agent's world: put where it is told, its goal not in the picture."""

from importlib.util import find_spec

import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")
if not find_spec("gymnasium_robotics"):  # not imported here: it starts threads, and other tests fork
    pytest.skip("the extra [agent] is not installed: no PointMaze", allow_module_level=True)

from jepa_pretrain.agent.behaviours import behaviour
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.pointmaze import REACH
from jepa_pretrain.agent.rollouts import play
from jepa_pretrain.agent.trials import Acting, run
from jepa_pretrain.agent.umaze import far_trials

MAZE = "PointMaze_UMaze-v3"


@pytest.fixture(scope="module")
def environments():
    made = Environments(MAZE, 4, 32)
    yield made
    made.close()


def test_the_ball_is_put_where_it_is_told_and_the_goal_is_not_drawn(environments):
    places, goals = (
        torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [1.0, 0.2], [0.1, -1.0]]),
        torch.tensor([[-1.0, -1], [1, 1]]),
    )
    options = [{"state": one.numpy(), "target_state": goals[row % 2].numpy()} for row, one in enumerate(places)]
    state = environments.reset([0] * 4, options).state
    torch.testing.assert_close(state, torch.cat([places, goals.repeat(2, 1), torch.zeros(4, 2)], 1))
    pictures = environments.pictures().float()
    off = (pictures - pictures[:1]).abs().amax((1, 2, 3))
    assert off[1] == 0 and (off[2:] > 30).all(), "another goal changes nothing, another place does"
    moved = environments.step(torch.tensor([[1.0, 0.0]]).expand(4, -1))
    assert (moved.state[:, 0] > state[:, 0]).all() and moved.state.shape == (4, 6) and moved.proprio.shape == (4, 4)


def test_the_ball_is_drawn_where_it_is_at_any_size(environments):
    """From above: x to the right, y upwards, a unit as wide in every place."""
    places = torch.tensor([[-1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [0.0, -1.0]])
    for size in (32, 64):
        many = environments if size == 32 else Environments(MAZE, 4, size)
        many.reset([0] * 4, [{"state": one.numpy(), "target_state": one.numpy()} for one in places])
        pictures = many.pictures().float()
        green = (pictures[:, 1] - pictures[:, [0, 2]].amax(1)).clamp_min(0)  # (B, H, W); nothing else is
        at = (torch.arange(size) + 0.5) / size - 0.5
        mass = green.sum((1, 2))
        middle = torch.stack([green.sum(1) @ at / mass, -(green.sum(2) @ at) / mass], 1)
        unit = (middle[1, 0] - middle[0, 0]) / 2  # of the width of a picture
        torch.testing.assert_close(middle, unit * places, atol=0.01, rtol=0)
        assert 0.25 < unit < 0.33, "all of the maze is seen, and little else"


def test_the_script_goes_round_and_a_straight_line_does_not(environments):
    trials = drawn_trials(environments, 8, 0)
    begin = environments.reset([one.seed for one in trials[:4]], [one.start for one in trials[:4]]).state
    assert ((begin[:, :2] - begin[:, 2:4]).norm(dim=1) >= REACH).all()
    ends = [
        {"state": place, "target_state": [-1.0, -1.0]} for place in ([-1.0, 1.0], [-1.1, 0.9], [-0.8, 1.0], [0.0, 1.0])
    ]
    round_it = [trials[0]._replace(seed=row, start=one) for row, one in enumerate(ends)]
    expert, straight = (
        run(environments, Acting(behaviour(name, MAZE, environments.actions), [0] * 4), round_it, 200)
        for name in ("expert", "straight")
    )
    assert all(expert.won) and not any(straight.won)


def test_far_goals_lie_in_the_other_arm(environments):
    trials = far_trials(40, 0)
    start, goal = (torch.tensor([one.start[key] for one in trials]) for key in ("state", "target_state"))
    assert (start[:, 1] * goal[:, 1] < 0).all() and len(set(start[:, 0].tolist())) == 40
    assert [one.seed for one in trials] == [one.seed for one in far_trials(40, 0)]
    assert all((one.goal["state"] == one.start["target_state"]).all() for one in trials)
    expert, straight = (
        run(environments, Acting(behaviour(name, MAZE, environments.actions), [0] * 4), trials[:8], 200)
        for name in ("expert", "straight")
    )
    assert all(expert.won) and sum(straight.won) < 2


def test_an_explorer_walks_on_whatever_the_goal_is(environments):
    explorer = behaviour("explorer", MAZE, environments.actions)
    episodes = play(environments, explorer, [0, 1, 2, 3], 150, [{"target_state": [9.0, 9.0]}] * 4, look=False)
    again = play(environments, explorer, [0, 1, 2, 3], 150, [{"target_state": [9.0, 9.0]}] * 4, look=False)
    arms = [one.proprio[:, 1].sign().unique().numel() for one in episodes]
    assert sum(one > 1 for one in arms) >= 2, "from arm to arm"
    assert all(torch.equal(a.actions, b.actions) for a, b in zip(episodes, again, strict=True))
