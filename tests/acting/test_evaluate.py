"""Trials in TwoRoom: what the protocol promises of them, floor and ceiling, and a planner asked as it should be."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")
if not find_spec("stable_worldmodel"):  # not imported here: it starts threads, and other tests fork
    pytest.skip("the extra [agent] is not installed: no swm/TwoRoom-v1", allow_module_level=True)

from jepa_pretrain.acting.evaluate import evaluate
from jepa_pretrain.acting.outcomes import counted
from jepa_pretrain.agent import tworoom
from jepa_pretrain.agent.actor import Planning
from jepa_pretrain.agent.behaviours import TwoRoomExpert, TwoRoomExplorer, TwoRoomStraight
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Acting, Outcome, Pursuit, Trial, run
from jepa_pretrain.agent.world_model import Continuous, unroll
from jepa_pretrain.contracts import UserError

DOORS = ["door.position"]


@pytest.fixture(scope="module")
def environments():
    return Environments(tworoom.NAME, 8, 64)


class Sighted:
    """A world model that knows where the agent's red dot is, and no walls: planning with it is a straight line."""

    width, grid_tokens, block, frames = 2, 1, 5, 1
    action = Continuous(-torch.ones(10), torch.ones(10))

    def encode(self, frames):
        red = (frames[:, 0].float() - frames[:, 1].float()).clamp_min(0)  # (B, H, W)
        axis = torch.arange(64.0) * 3.5 + 1.75
        mass = red.sum((1, 2))
        return torch.stack([(red.sum(1) * axis).sum(1) / mass, (red.sum(2) * axis).sum(1) / mass], 1)[:, None] / 100

    def step(self, state, action, z=None):
        return state + action.unflatten(1, (5, 2)).sum(1)[:, None] * 0.05

    def rollout(self, state, plan, z=None):
        return unroll(self, state, plan, z)


def test_offset_goals_are_25_steps_ahead_and_unsolved(environments):
    trials = tworoom.offset_trials(environments, 12, 0, DOORS)
    assert [t.start["state"].tolist() for t in trials] == [
        t.start["state"].tolist() for t in tworoom.offset_trials(environments, 12, 0, DOORS)
    ]
    for one in trials:
        gap = torch.from_numpy(one.goal["state"] - one.start["state"])
        assert tworoom.REACH <= gap.norm() <= 25 * 5 + 1e-3
        assert (one.start["target_state"] == one.goal["state"]).all()
    assert {one.kind for one in trials} == {"across", "same room"}
    expert = run(environments, Acting(TwoRoomExpert(), [0] * 8), trials, 50)
    assert all(expert.won) and max(expert.steps) <= 26, "doors are those of the episode"
    idle = run(environments, last := Idle(), trials, 3)
    assert last.asked == 4, "environments that fill up the last round are not asked about"
    assert not any(idle.won) and idle.steps == [3] * 12


class Idle:
    def begin(self, goal):
        assert goal.shape == (8, 3, 64, 64)

    def act(self, seen, look):
        self.asked = int(seen.running.sum())
        return torch.zeros(8, 1, 2)


def test_far_goals_need_the_door(environments):
    trials = tworoom.far_trials(16, 0, None)
    assert {one.kind for one in trials} == {"across"}
    expert, straight = (
        run(environments, Acting(kind(), [0] * 8), trials, 100) for kind in (TwoRoomExpert, TwoRoomStraight)
    )
    assert all(expert.won) and sum(straight.won) < 10


def test_an_explorer_goes_to_and_fro_and_bumps_into_the_wall(environments):
    explorer, rngs = TwoRoomExplorer(), [np.random.default_rng(seed) for seed in range(8)]
    explorer.begin()
    seen, before, stuck, rooms = environments.reset(list(range(8))), None, 0, []
    for _ in range(150):
        action = explorer.act(seen, rngs)
        before, seen = seen.state[:, :2], environments.step(action)
        stuck += int((((before - seen.state[:, :2]).norm(dim=1) < 1) & (action.norm(dim=1) > 0.9)).sum())
        rooms.append(seen.state[:, 0] > tworoom.WALL)
    crossings = (torch.stack(rooms)[1:] != torch.stack(rooms)[:-1]).sum(0)
    assert crossings.max() >= 2 and stuck > 20


def test_planning_is_told_the_goal_and_replans_where_a_block_ends(environments):
    """With a model that ignores walls it reaches all goals that a straight line reaches, and hardly others."""
    trials = tworoom.offset_trials(environments, 12, 1, None)
    model = Sighted()
    planning = Planning(model, Cost(model.action), CEM(samples=64, iterations=4))
    actor = Pursuit(model, planning, Task(torch.zeros(1, 1, 2), 5))
    planned = run(environments, actor, trials, 50)
    straight = run(environments, Acting(TwoRoomStraight(), [0] * 8), trials, 50)
    same = [won for won, one in zip(planned.won, trials, strict=True) if one.kind == "same room"]
    assert all(same) and len(same) >= 2
    assert sum(planned.won) <= sum(straight.won) + 2
    assert planned.actions == 5 * planned.decisions


def test_the_command_tells_and_writes(capsys, tmp_path):
    evaluate("expert", tworoom.NAME, episodes=6, parallel=6, out=str(tmp_path / "expert.json"))
    assert "100.0 %" in capsys.readouterr().out
    found = json.loads((tmp_path / "expert.json").read_text())
    assert found["success"]["all"] == {
        "episodes": 6,
        "won": 6,
        "success": 100.0,
        "interval": pytest.approx([61, 100], abs=0.1),
    }
    with pytest.raises(UserError, match="cannot be put at its goal"):
        evaluate("random", "CartPole-v1")


def test_failures_do_not_count():
    trials = [Trial(0, {}, {}, kind) for kind in ("a", "a", "b")]
    found = counted(trials, Outcome([True, False, False], [False, True, False], [10, 3, 50], 1.0, 100, 20))
    assert found["success"]["a"]["success"] == 100.0 and found["success"]["all"]["episodes"] == 2
    assert (found["failed"], found["steps"], found["ms_per_action"], found["ms_per_plan"]) == (1, 10.0, 10.0, 50.0)
