"""Levels above a world model: made, saved, planned on and shown by command."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")
pytest.importorskip("av", reason="videos need PyAV")

import toy_environment

from jepa_pretrain import cli
from jepa_pretrain.acting.climb import _chancy
from jepa_pretrain.acting.collect import collect
from jepa_pretrain.acting.critic import critic
from jepa_pretrain.acting.levels import levels
from jepa_pretrain.acting.load import load_mind, load_world
from jepa_pretrain.acting.outcomes import Trapped
from jepa_pretrain.acting.search import Search, searching
from jepa_pretrain.agent.environments import Seen
from jepa_pretrain.agent.folder import load_agent, save_agent
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.joint import Joint
from jepa_pretrain.agent.uncertainty import Stochastic
from jepa_pretrain.agent.worlds.fork import fallen
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.export import write
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels
from jepa_pretrain.models.world import World

toy_environment.register()
TOY = toy_environment.NAME
FRAMES = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    collect(TOY, str(folder), "sticky", 500, 32, steps=40)
    return str(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Of fresh weights: what is above does not care."""
    torch.manual_seed(0)
    made = World(Pixels(32, 8), ResidualMLP(12, 4, hidden=16), 12, (24,), block=2, low=(-1.0, -1.0), high=(1.0, 1.0))
    made.projector.eval()
    made.projector[1].running_mean.normal_()
    return str(write(made, tmp_path_factory.mktemp("world") / "export", {}))


@pytest.fixture(scope="module")
def agent(recordings, world, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("agent") / "agent")
    levels(world, recordings, folder, (2, 2), width=6, macro=2, horizon=3, steps=4, batch_size=32)
    return folder


def decided(mind):
    mind.pursue(FRAMES.flip(0))
    return torch.stack([mind.act(FRAMES) for _ in range(3)])


def test_the_lowest_level_is_the_world_model_as_it_was(agent, world):
    lowest, model = load_mind(agent).model, load_world(world)
    state, plan = model.encode(FRAMES), torch.randn(3, 4, 4)
    torch.testing.assert_close(lowest.encode(FRAMES), state)
    torch.testing.assert_close(lowest.rollout(state, plan), model.rollout(state, plan))
    assert lowest.block == 2 and torch.equal(lowest.action.low, model.action.low)
    blocks = [one.model.block for one in load_mind(agent).planner.levels]
    assert blocks == [4, 8]


@pytest.mark.parametrize("search", [Search(), Search(planner="joint", starts=2, iterations=2), Search(lifted=False)])
def test_a_folder_brings_back_the_levels(agent, tmp_path, search):
    mind = searching(load_mind(agent), search)
    again = load_agent(save_agent(mind, tmp_path / "agent"))
    assert torch.equal(decided(mind), decided(again))
    assert isinstance(again.planner, Joint) == (search.planner == "joint")


def test_levels_are_chosen_for_a_search(agent):
    mind = load_mind(agent)
    two = searching(mind, Search(levels=2, near=0.5, reach=7.0)).planner
    (upper,), own = two.levels, mind.planner.levels[0]
    assert upper.u["recorded"] == pytest.approx(0.5 * upper.pace)
    reach = (upper.model.action.high - own.model.action.high) / (5 * own.cost.recorded.std)
    torch.testing.assert_close(reach, torch.ones(2))
    flat = searching(mind, Search(levels=1))
    assert isinstance(flat.planner, Gradient) and flat.task.horizon == 8
    assert searching(mind, Search(planner="gradient")).task.horizon == 8 != mind.task.horizon
    assert not torch.equal(decided(mind), decided(flat))
    refused = [
        (Search(levels=4), "has levels 1 to 3"),
        (Search(futures=3), "one future"),
        (Search(risk=1.0), "neither"),
        (Search(starts=2), "name the planner that starts are for: these have starts: gradient, joint"),
        (Search(planner="gradient", samples=9), "gradient has no samples"),
    ]
    for asked, told in refused:
        with pytest.raises(UserError, match=told):
            searching(mind, asked)


def test_it_is_measured_and_shown(agent, world, tmp_path):
    out = tmp_path / "outcome.json"
    common = [agent, "--env", TOY, "--episodes=2", "--parallel=2", "--budget=2", "--flops=true", "--out", str(out)]
    spent = {}
    for count in (1, 3):
        cli.main(["agent", "eval", *common, f"--levels={count}", "--horizon=2"])
        spent[count] = json.loads(out.read_text())["gflop_per_plan"]
    assert spent[3] > spent[1] > 0
    assert json.loads(out.read_text())["planner"] == "Hierarchical"
    cli.main(["agent", "show", agent, TOY, str(tmp_path / "page"), "--budget=2"])
    page = (tmp_path / "page" / "episode.html").read_text()
    assert "level 3, 8 steps at a time" in page and "level 2, sub-goal 1" in page
    with pytest.raises(UserError, match="has no levels to plan on"):
        searching(load_mind(world), Search(levels=2))


def test_what_cannot_be_known_gets_a_latent_variable(recordings, world, tmp_path):
    critic(world, recordings, str(tmp_path / "critic"), steps=2, batch_size=32, discount=0.9)
    assert load_agent(tmp_path / "critic").cost.critics["steps"].discount == 0.9
    levels(str(tmp_path / "critic"), recordings, str(tmp_path / "chance"), (), values=3, steps=4, batch_size=32)
    assert dict(load_agent(tmp_path / "chance").task.v) == {"steps": 1.0}
    model = load_agent(tmp_path / "chance").model
    assert isinstance(model, Stochastic) and model.chances == 3
    task = searching(load_agent(tmp_path / "chance"), Search(futures=4, risk=1.0)).task
    assert (task.samples, task.risk) == (4, 1.0)
    torch.testing.assert_close(model.encode(FRAMES), load_world(world).encode(FRAMES))
    with pytest.raises(UserError, match="one level alone needs values"):
        levels(world, recordings, str(tmp_path / "none"), ())


def walked(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Steps across a line, where three in ten are thrown down: state, action, after, thrown."""
    state, action = 2 * torch.rand(count, 1, 4) - 1, 2 * torch.rand(count, 2) - 1
    after = state + 0.5 * F.pad(action, (0, 2))[:, None]
    thrown = (state[:, 0, 0] < 0) & (after[:, 0, 0] > 0) & (torch.rand(count) < 0.3)
    return state, action, after - 1.5 * F.one_hot(thrown.long() * 2, 4)[:, None] * thrown[:, None, None], thrown


def test_the_latent_variable_tells_who_was_thrown_down():
    torch.manual_seed(0)
    plain = ResidualMLP(4, 2, hidden=32)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-2)
    for _ in range(100):
        state, action, after, _ = walked(256)
        optimiser.zero_grad()
        F.mse_loss(plain.step(state, action), after).backward()
        optimiser.step()
    level = _chancy(SimpleNamespace(width=4, dynamics=plain), 2)
    optimiser = torch.optim.Adam(level.parameters(), lr=3e-3)
    for _ in range(200):
        state, action, after, _ = walked(256)
        z, cost = level.latent(state, after)
        optimiser.zero_grad()
        (F.mse_loss(level.predictor.step(state, action, z), after) + level.latent.weight * cost.mean()).backward()
        optimiser.step()
    state, action, after, thrown = walked(4000)
    z = level.latent.eval()(state, after)[0].argmax(1)
    crossing = (state[:, 0, 0] < 0) & ((state[:, 0] + 0.5 * F.pad(action, (0, 2)))[:, 0] > 0)
    bad = int(z[thrown].float().mean().round())
    assert (z[thrown] == bad).float().mean() > 0.95 and (z[crossing & ~thrown] == bad).float().mean() < 0.1
    down = []
    for value in (bad, 1 - bad):
        after = level.predictor.step(state, action, torch.eye(2)[value].expand(len(state), -1))
        down.append(float((after - state)[crossing, 0, 2].mean()))
    assert down[0] < down[1] - 0.4 and abs(down[1]) < 0.1, "and with it the dynamics fall"
    odds = level.latent._log_prior(state).exp()[:, bad]
    assert 0.05 < odds[crossing].mean() < 0.45, "the prior knows actions of no sort, and so says less than three in ten"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda args: args["levels"].append(args["levels"][0]), "3 upper levels"),
        (lambda args: args["levels"][0].pop("near"), "a level has"),
        (lambda args: args["levels"][0].update(pace="quick"), "are numbers"),
        (lambda args: args["levels"][0].update(horizon=0), "horizon >= 1"),
        (lambda args: args["levels"][0].update(planner={"class": "Joint", "args": {}}), "unknown class 'Joint'"),
        (lambda args: args.pop("planner"), "a planner Hierarchical has"),
    ],
)
def test_strange_levels_are_refused(agent, tmp_path, change, message):
    folder = save_agent(load_agent(agent), tmp_path / "agent")
    plain = json.loads((folder / "agent.json").read_text())
    change(plain["planner"]["args"])
    (folder / "agent.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match=message):
        load_agent(folder)


def test_who_fell_is_counted_once_and_repeats_are_not():
    trapped, safe, pit = Trapped(fallen), (0.2, 0.5), (0.5, 0.7)
    for began, places in ((True, (safe, safe)), (False, (safe, pit)), (False, (safe, safe)), (True, (pit, pit))):
        state = torch.tensor([[*one, 0.9, 0.5, 0.0] for one in places])
        trapped(Seen(state[:, :2], state, *torch.zeros(4, 2)), began)
    assert [trapped.count(number) for number in (1, 2, 3)] == [0, 1, 2]
