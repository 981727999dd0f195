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
from jepa_pretrain.agent.trials import Acting, run

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
