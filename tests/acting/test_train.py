"""From recordings to a world model that a planner can use, and what it measures."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")
pytest.importorskip("av", reason="videos need PyAV")

import toy_environment

from jepa_pretrain import cli, load_agent
from jepa_pretrain.acting.collect import collect
from jepa_pretrain.acting.critic import critic
from jepa_pretrain.acting.load import load_world
from jepa_pretrain.acting.measure import measure
from jepa_pretrain.acting.train import train
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.readout import fit
from jepa_pretrain.agent.sight import encoded
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.trajectories import read_episodes

toy_environment.register()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    for split, seed in (("train", 0), ("val", 1)):
        collect(toy_environment.NAME, str(folder / split), "sticky", 1200, 32, seed, steps=40)
    return folder


@pytest.fixture(scope="module")
def world(recordings):
    folder = recordings / "world"
    options = ["--encoder=pixels", "--steps=150", "--batch_size=64", "--block=2", "--rollout=3", "--width=16"]
    cli.main(["agent", "train", str(recordings / "train"), str(folder), *options])
    return folder


def test_a_trained_world_is_a_planners_world_model(world, recordings):
    model = load_world(str(world))
    assert isinstance(model, WorldModel)
    assert (model.width, model.block, model.action.width) == (16, 2, 4)
    assert model.action.low.tolist() == [-1.0] * 4
    episode = max(read_episodes(str(recordings / "val")), key=lambda one: len(one.frames))
    state, goal = model.encode(episode.frames[:1]), model.encode(episode.frames[6:7])
    task, cost = Task(goal, horizon=3), Cost(model.action)
    plan = Gradient(starts=1, iterations=5).plan(model, cost, state, task, torch.Generator())
    still = cost(model.rollout(state, torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4), task)
    assert plan.cost < still


@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_dynamics_have_the_size_that_is_asked_for(recordings, tmp_path, kind):
    small = dict(steps=1, batch_size=8, block=2, rollout=2, width=8, dynamics=kind)
    train(str(recordings / "val"), str(tmp_path / "w"), "pixels", dynamics_width=32, dynamics_depth=3, **small)
    dynamics = load_world(str(tmp_path / "w")).world.dynamics
    if kind == "mlp":
        assert [one.out_features for one in dynamics.net[::2]] == [32, 32, 32, 8]
    else:
        assert (dynamics.config["width"], dynamics.config["depth"]) == (32, 3)
    with pytest.raises(UserError, match="a multiple of 4 numbers, not 2 of 30"):
        train(str(recordings / "val"), str(tmp_path / "w"), "pixels", dynamics_width=30, **small)


def test_predictions_beat_standing_still(world, recordings, capsys, tmp_path):
    import json

    out = tmp_path / "measured.json"
    measure(str(world), str(recordings / "val"), horizon=3, out=str(out))
    assert "standing still" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["r2"] > 0.5 and len(found["r2_each"]) == 2
    assert min(found["r2_each"]) <= found["r2"] <= max(found["r2_each"])
    measure(str(world), str(recordings / "val"), 3, readout=str(recordings / "train"), out=str(out))
    more = json.loads(out.read_text())
    assert more["windows"] > found["windows"] and more["r2"] > 0.5
    for row in found["horizon"]:
        assert row["error"] < 0.8 * row["still"] and row["decoded"] < row["decoded_still"], row


@pytest.mark.parametrize("objective", ["iql", "qrl"])
def test_a_critic_makes_it_an_agent(world, recordings, tmp_path, objective):
    """Its critic knows what is near, and the whole acts on pictures."""
    folder = str(tmp_path / "agent")
    critic(str(world), str(recordings / "train"), folder, steps=150, batch_size=128, objective=objective)
    agent = load_agent(tmp_path / "agent")
    assert dict(agent.task.v) == {"steps": 1.0} and not agent.task.u
    places = torch.tensor([[0.1, 0.5], [0.2, 0.5], [0.5, 0.5], [0.9, 0.5]])
    many = Environments(toy_environment.NAME, 4, 32)
    many.reset([0] * 4, [{"state": one.tolist(), "target_state": [0.1, 0.5]} for one in places])
    pictures = many.pictures()
    states = agent.model.encode(pictures)
    to_go = agent.cost.critics["steps"].between(states, states[:1])
    assert to_go[1] < to_go[2] < to_go[3]
    agent.pursue(pictures[:1].expand(4, -1, -1, -1))
    assert agent.act(pictures).shape == (4, 2)


def test_two_pictures_tell_speed_and_one_does_not(tmp_path):
    """Of a square that rolls on: read from states of episodes that the reading did not learn from."""
    for split, seed in (("train", 0), ("val", 1)):
        collect("ToyRolls-v0", str(tmp_path / split), "sticky", 800, 32, seed, steps=40)
    held, told = read_episodes(str(tmp_path / "val")), {}
    fitted, tested = held[0::2], held[1::2]
    for frames in (1, 2):
        folder = str(tmp_path / f"world-{frames}")
        options = ["--encoder=pixels", "--steps=80", "--batch_size=64", "--block=2", "--rollout=3", "--width=16"]
        cli.main(["agent", "train", str(tmp_path / "train"), folder, *options, f"--frames={frames}"])
        model = load_world(folder)
        assert model.frames == frames
        reader = fit(encoded(model, fitted)[:, 0], torch.cat([one.proprio for one in fitted]))
        truth = torch.cat([one.proprio for one in tested])
        off = (reader(encoded(model, tested)[:, 0]) - truth).square().mean(0) / truth.var(0)
        told[frames] = (1 - off).unflatten(0, (2, 2)).mean(1)  # R2 of place and of speed
    assert told[1][0] > 0.5 and told[2][0] > 0.5, told
    assert told[1][1] < 0.2 and told[2][1] > 0.35, told
    critic(folder, str(tmp_path / "train"), str(tmp_path / "agent"), steps=2, batch_size=64)
    agent = load_agent(tmp_path / "agent")
    agent.pursue(held[0].frames[:1])
    assert agent.act(held[0].frames[:1]).shape == (1, 2) and agent.model.frames == 2


def test_ridge_reads_what_is_linear():
    rng = torch.Generator().manual_seed(0)
    x, w = torch.randn(200, 5, generator=rng), torch.randn(5, 2, generator=rng)
    reader = fit(x[:100] + 3, x[:100] @ w + 7)
    torch.testing.assert_close(reader(x[100:] + 3), x[100:] @ w + 7, atol=0.05, rtol=0.01)


def test_loading_needs_no_trainer(world):
    code = (
        f"import sys; from jepa_pretrain.acting.load import load_world; load_world({str(world)!r});"
        "print({'lightning', 'webdataset'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_mistakes_are_explained(recordings, tmp_path):
    with pytest.raises(UserError, match="a batch needs 4096"):
        train(str(recordings / "val"), str(tmp_path / "w"), "pixels", steps=1, batch_size=4096)
    collect(toy_environment.NAME, str(tmp_path / "odd"), frames=60, size=24)
    with pytest.raises(UserError, match=r"an expectile lies in .5..1"):
        critic("nowhere", "nothing", "nowhere", expectile=0.2)
    with pytest.raises(UserError, match="qrl has no discount, expectile; it has: longest"):
        critic("nowhere", "nothing", "nowhere", objective="qrl", expectile=0.8, discount=0.9)
    with pytest.raises(UserError, match="iql has no longest; it has: expectile, discount"):
        critic("nowhere", "nothing", "nowhere", longest=9)
    with pytest.raises(UserError, match="the longest way takes some steps, found 0"):
        critic("nowhere", "nothing", "nowhere", objective="qrl", longest=0)
    with pytest.raises(UserError, match="not 24"):
        train(str(tmp_path / "odd"), str(tmp_path / "w"), steps=1)
