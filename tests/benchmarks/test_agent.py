"""The benchmark of an agent's parts counts what it says it counts."""

import importlib.util

import pytest
import torch
from stand_ins import ROOT

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")

from jepa_pretrain.agent.environments import Seen

spec = importlib.util.spec_from_file_location("agent_benchmark", ROOT / "scripts" / "benchmarks" / "agent.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
DISC = {"centre": (0.5, 0.5), "radius": 0.1}


def seen(places: torch.Tensor) -> Seen:
    return Seen(places, places, *(torch.zeros(len(places)) for _ in range(4)))


def test_who_was_inside_is_counted_in_the_trial_it_happened():
    inside = benchmark.Inside(DISC, benchmark.PARALLEL + 2)
    away, within = torch.zeros(benchmark.PARALLEL, 2), torch.full((benchmark.PARALLEL, 2), 0.5)
    inside(seen(away), True)
    inside(seen(torch.cat([within[:3], away[3:]])), False)
    inside(seen(away), False)  # out again, and still counted
    inside(seen(torch.cat([away[:1], within[:1] + 0.05, within[2:]])), True)  # two trials, the rest is filling
    assert inside.found.nonzero()[:, 0].tolist() == [0, 1, 2, benchmark.PARALLEL + 1]
    assert inside.deepest == pytest.approx(0.1)


@pytest.mark.parametrize("name", benchmark.DISCS)
def test_starts_and_goals_lie_outside_the_widened_disc_on_either_side(name):
    disc = benchmark.DISCS[name]
    centre, wide = torch.tensor(disc["centre"]), disc["radius"] + disc["margin"]
    crossing = 0
    for one in benchmark.around(disc, 50, 0):
        start, goal = (torch.from_numpy(end["state"]) for end in (one.start, one.goal))
        assert (start - centre).norm() > wide and (goal - centre).norm() > wide
        assert (start[1] < centre[1]) != (goal[1] < centre[1])
        way = start + torch.linspace(0, 1, 100)[:, None] * (goal - start)
        crossing += bool(((way - centre).norm(dim=1) < disc["radius"]).any())
    assert crossing > 25, "most straight ways lead through"
