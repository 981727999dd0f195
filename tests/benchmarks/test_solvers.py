"""The benchmark of solvers asks both sides the same question."""

import importlib.util

import pytest
import torch
from stand_ins import ROOT

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")

from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import StepsToGo
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.planners.problem import Problem
from jepa_pretrain.agent.task import Task
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels
from jepa_pretrain.models.world import World

spec = importlib.util.spec_from_file_location("solvers_benchmark", ROOT / "scripts" / "benchmarks" / "solvers.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


@pytest.fixture
def mind():
    torch.manual_seed(0)
    model = Learned(World(Pixels(16, 4), ResidualMLP(6, 4, hidden=8), 6, block=2, low=(-1.0, -1.0), high=(1.0, 1.0)))
    task = Task(torch.randn(3, 1, 6), 4, {"goal": 0.5}, {"steps": 1.0})
    return Agent(model, Cost(model.action, {"steps": StepsToGo(6, hidden=8)}), benchmark.ours("cem", (8, 2)), task)


def test_their_solvers_are_told_the_costs_that_ours_are_told(mind):
    state, plans = torch.randn(3, 1, 6), 2 * torch.randn(3, 5, 4, 4)
    mine = Problem(mind.model, mind.cost, state, mind.task, "CEM", 100).score(plans.clamp(-1, 1)).cost
    asked = {"state": state[:, None].expand(-1, 5, -1, -1), "goal": mind.task.goal[:, None].expand(-1, 5, -1, -1)}
    told = benchmark.Costed(mind, mind.task).get_cost(asked, plans)
    torch.testing.assert_close(told, mine)
    assert (mine.std(1) > 0).all() and (mine.mean(1).std() > 0), "plans differ, and so do states"


def test_what_is_left_of_a_plan_starts_the_next_one(mind):
    starts = []

    class Solver:
        def solve(self, info, start):
            starts.append(start)
            print("solve time: 3 s")
            return {"actions": torch.arange(3.0)[None, :, None].expand(len(info["state"]), -1, 4) + len(starts)}

    side = benchmark.Theirs(Solver)
    first = side.act(torch.zeros(3, 1, 6), mind.task)
    side.act(torch.zeros(1, 1, 6), mind.task.of(torch.tensor([2])), torch.tensor([2]))
    assert (first == 1).all() and starts[0] is None
    assert starts[1].shape == (1, 2, 4) and starts[1][0, :, 0].tolist() == [2.0, 3.0]
