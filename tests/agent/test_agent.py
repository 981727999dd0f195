"""The whole agent: blocks, environments side by side, memory, and a folder that brings it back."""

import json
from dataclasses import replace

import pytest
import torch
from known_worlds import Linear
from safetensors.torch import load_file, save_file

from jepa_pretrain import load_agent
from jepa_pretrain.agent.actor import Policy
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.configurator import Configurator, Rules, Thrift
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import EnergyToCome, StepsToGo
from jepa_pretrain.agent.folder import save_agent
from jepa_pretrain.agent.guardrails import HalfSpace, KeepOut
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.memory import Memory
from jepa_pretrain.agent.mixture import Mixture
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.hierarchical import Hierarchical
from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.surprise import Usual
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous, Ensemble, WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels
from jepa_pretrain.models.world import World


class Blocks(Linear):
    """The linear world in blocks of three steps; a picture's first four pixels, less 100, are its state."""

    block = 3

    def __init__(self) -> None:
        super().__init__()
        self.action = Continuous(torch.full((6,), -4.0), torch.full((6,), 4.0))

    def encode(self, frames):
        return super().encode(frames) - 100

    def step(self, state, action, z=None):
        for one in action.split(2, dim=1):
            state = super().step(state, one)
        return state


def picture(state: torch.Tensor) -> torch.Tensor:
    """`(E, 1, 4)` -> `(E, 3, 4, 4)`, as `Blocks` reads it."""
    frames = torch.zeros(len(state), 3, 4, 4)
    frames[:, 0, 0] = state[:, 0] + 100
    return frames


def agent_of(**settings) -> Agent:
    world = Blocks()
    task = Task(torch.zeros(1, 1, 4), 2, u={"goal": 1.0, "effort": 0.01})
    return Agent(world, Cost(world.action), Gradient(2, 30), task, **settings)


def episode(agent: Agent, start: torch.Tensor, steps: int) -> torch.Tensor:
    """Acts in the linear world, `(E, steps + 1, 1, 4)`."""
    states = [start]
    for _ in range(steps):
        states.append(Linear().step(states[-1], agent.act(picture(states[-1]))))
    return torch.stack(states, 1)


START, GOAL = torch.tensor([[[3.0, -2, 0, 0]], [[0, 2, 1, 0]]]), torch.tensor([[[0.0, 0, 0, 0]], [[1, 0, 0, 0]]])


def test_reaches_each_environments_own_goal():
    agent = agent_of()
    agent.pursue(picture(GOAL))
    states = episode(agent, START, 15)
    assert ((states[:, -1] - GOAL).norm(dim=(1, 2)) < 0.3).all()
    assert ((states[:, 0] - GOAL).norm(dim=(1, 2)) > 2).all()


def test_decides_where_a_block_ends_and_only_for_who_is_due():
    agent, decided = agent_of(watched=True), []
    agent.pursue(picture(GOAL))
    state = START
    for step in range(7):
        if step == 4:
            agent.begin_again(torch.tensor([1]))
        agent.last = None
        state = Linear().step(state, agent.act(picture(state)))
        decided.append(agent.last.rows.tolist() if agent.last else [])
    assert decided == [[0, 1], [], [], [0, 1], [1], [], [0]]


def test_memory_holds_what_it_cost():
    agent = agent_of(memory=Memory(10), watched=True)
    agent.pursue(picture(GOAL))
    states = episode(agent, START, 6)
    held, energies = agent.memory.pairs(0)
    assert len(agent.memory) == 4  # two decisions of two environments
    torch.testing.assert_close(held[2:], states[:, 3], atol=1e-4, rtol=1e-4)
    goal = (states[:, 3] - GOAL).square().mean((1, 2))
    torch.testing.assert_close(energies[2:], goal + 0.01 * agent.last.action.square().mean(1), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(agent.last.terms["goal"], goal, atol=1e-3, rtol=1e-3)
    assert agent.last.states.shape == (2, 2, 1, 4)


def test_policy_acts_alone():
    torch.manual_seed(0)
    policy = Policy.of(Blocks(), hidden=8)
    agent = agent_of(policy=policy, reactive=True)
    agent.pursue(picture(GOAL))
    first = agent.act(picture(START))
    torch.testing.assert_close(first, policy.act(START, agent.task)[:, :2])


def test_mistakes_are_named():
    agent = agent_of()
    with pytest.raises(UserError, match="call `pursue` with a picture"):
        agent.act(picture(START))
    agent.pursue(picture(GOAL))
    with pytest.raises(UserError, match="pursues 2 goals, found 1 pictures"):
        agent.act(picture(START[:1]))
    with pytest.raises(UserError, match="needs a policy"):
        agent_of(reactive=True)
    with pytest.raises(UserError, match="the policy reads 5 numbers"):
        agent_of(policy=Policy(5, low=[-1.0], high=[1.0]))
    with pytest.raises(UserError, match="can be saved"):
        save_agent(agent, "nowhere")


def trained(seed: int = 0) -> Learned:
    torch.manual_seed(seed)
    dynamics = ResidualMLP(8, actions=4, hidden=16)
    return Learned(World(Pixels(16, side=4), dynamics, width=8, hidden=(), block=2, low=(-1.0, -2.0), high=(1.0, 2.0)))


def whole(model: WorldModel) -> Agent:
    """An agent that has one of everything."""
    torch.manual_seed(0)
    rails = (
        HalfSpace(torch.randn(8), 50.0),
        KeepOut(torch.randn(2, 8), torch.zeros(2), torch.ones(2), 0.1, "corner", hard=False),
    )
    critics = {"steps": StepsToGo(8, hidden=8), "sum": EnergyToCome(8, quantiles=(0.1, 0.9), hidden=8)}
    task = Task(
        torch.zeros(1, 1, 8), 3, u={"goal": 1.0}, v={"steps": 0.5, "sum": 0.1}, guardrails=rails, risk=0.5, samples=3
    )
    policy = Policy.of(model, hidden=8)
    return Agent(model, Cost(model.action, critics), CEM(16, 2, 4), task, policy, memory=Memory(7), seed=3)


FRAMES = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def decides(agent: Agent) -> torch.Tensor:
    agent.pursue(FRAMES.flip(0))
    return torch.stack([agent.act(FRAMES) for _ in range(4)])


@pytest.mark.parametrize("members", [1, 2])
def test_folder_brings_back_an_agent_that_decides_the_same(tmp_path, members):
    model = trained() if members == 1 else Ensemble([trained(0), trained(1)])
    agent = whole(model)
    save_agent(agent, tmp_path / "agent")
    save_agent(agent, tmp_path / "agent")  # an agent may be replaced
    again = load_agent(tmp_path / "agent")
    assert torch.equal(decides(agent), decides(again))
    assert again.task.risk == 0.5 and again.task.samples == 3
    assert again.memory.capacity == 7 and again.task.guardrails[1].name == "corner"
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.pkl"))


def configured(chooser) -> Agent:
    """An agent whose configurator is `chooser`, with a readout."""
    agent, usual = whole(trained()), Usual(torch.linspace(0, 1, 101), torch.tensor(0.3), torch.tensor(0.2))
    readout = Readout.of(torch.randn(40, 1, 8), torch.randn(40, 2))
    made = Configurator(chooser, usual, Gradient(1, 2), 2)
    return replace(agent, reactive=False, configurator=made, readout=readout)


@pytest.mark.parametrize("chooser", [Rules(0.3, 1.5, 5), Thrift((0.0, 0.2, 1.0), enough=0.4, price=0.2, hidden=8)])
def test_folder_brings_back_a_configurator(tmp_path, chooser):
    agent = configured(chooser)
    save_agent(agent, tmp_path / "agent")
    again = load_agent(tmp_path / "agent")
    assert isinstance(again.actor, Mixture) and torch.equal(decides(agent), decides(again))
    assert torch.equal(agent.actor.choice.mode, again.actor.choice.mode)
    assert type(again.configurator.chooser) is type(chooser) and again.configurator.horizon == 2
    assert torch.equal(again.configurator.usual.errors, agent.configurator.usual.errors)
    assert torch.equal(again.readout.goals(torch.zeros(1, 2)), agent.readout.goals(torch.zeros(1, 2)))
    tensors = load_file(tmp_path / "agent" / "agent.safetensors")
    save_file(tensors | {"configurator.usual.errors": torch.zeros(3)}, tmp_path / "agent" / "agent.safetensors")
    with pytest.raises(UserError, match="holds usual, is missing or damaged"):
        load_agent(tmp_path / "agent")
    save_file(tensors | {"readout.bias": torch.zeros(3)}, tmp_path / "agent" / "agent.safetensors")
    with pytest.raises(UserError, match="readout does not fit"):
        load_agent(tmp_path / "agent")


def test_folders_of_something_else_are_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is no agent; give another folder"):
        save_agent(whole(trained()), tmp_path)
    with pytest.raises(UserError, match="without upper levels cannot be saved"):
        save_agent(replace(whole(trained()), planner=Hierarchical(CEM(16, 2, 4))), tmp_path / "new")
    with pytest.raises(UserError, match=r"no agent\.json there"):
        load_agent(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(format=9), "agent format 1"),
        (lambda plain: plain.pop("planner"), "lacks planner"),
        (lambda plain: plain["planner"].update({"class": "os.system"}), "unknown class 'os.system'"),
        (lambda plain: plain["planner"]["args"].update(samples=10**9), "CEM refuses 'samples'"),
        (lambda plain: plain["planner"]["args"].update(elites=999), "needs 2 <= elites"),
        (lambda plain: plain["critics"]["steps"]["args"].update(hidden=60000), "should have shape"),
        (lambda plain: plain["critics"]["steps"]["args"].update(colour=1), "colour"),
        (lambda plain: plain["task"].update(u={"goal": "much"}), "weights are numbers"),
        (lambda plain: plain["task"].update(horizon=0), "horizon or guardrails"),
        (lambda plain: plain["task"].update(risk="much"), "risk or samples"),
        (lambda plain: plain["task"].update(samples=10**9), "risk or samples"),
        (lambda plain: plain.update(worlds=10**6), "worlds or critics"),
        (lambda plain: plain.update(critics={"steps": plain["policy"]}), "unknown class 'Policy'"),
    ],
)
def test_strange_files_are_refused(tmp_path, change, message):
    folder = save_agent(whole(trained()), tmp_path / "agent")
    plain = json.loads((folder / "agent.json").read_text())
    change(plain)
    (folder / "agent.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match=message):
        load_agent(folder)


def test_damaged_weights_are_refused(tmp_path):
    folder = save_agent(whole(trained()), tmp_path / "agent")
    weights = load_file(folder / "agent.safetensors")
    save_file({**weights, "policy.scale": torch.tensor(float("nan"))}, folder / "agent.safetensors")
    with pytest.raises(UserError, match="not finite"):
        load_agent(folder)
    (folder / "agent.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="missing or damaged"):
        load_agent(folder)
