"""Learning from surprise in a plane whose motors change: what is learned, when, and what is kept."""

import pytest
import torch
from known_worlds import Known
from torch import nn

from jepa_pretrain.agent.actor import Policy
from jepa_pretrain.agent.adjusting import Adjusting
from jepa_pretrain.agent.adjustments import Settings
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.motors import motors, translated
from jepa_pretrain.agent.surprise import Transitions, Usual, predicted
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous
from jepa_pretrain.contracts import UserError

STEP, BLOCK = 0.1, 2


class Plane(nn.Module, Known):
    """A plane that believes a step is weight times action, in blocks of two steps: s = (x, y)."""

    block = BLOCK

    def __init__(self) -> None:
        nn.Module.__init__(self)
        bound = torch.full((2 * BLOCK,), STEP)
        Known.__init__(self, 2, Continuous(-bound, bound))
        self.motor = nn.Linear(2, 2, bias=False).requires_grad_(False)
        self.motor.weight.copy_(torch.eye(2))

    def step(self, state, action, z=None):
        return state + self.motor(action.unflatten(1, (BLOCK, 2))).sum(1)[:, None]


class Straight:
    """Plans in a plane: the action that leads nearest to the goal, by what the model believes of motors."""

    def __init__(self, model: Plane) -> None:
        self.model = model

    def begin(self, environments: int) -> None: ...

    def forget(self, rows: torch.Tensor) -> None: ...

    def act(self, state, task, rows=None):
        gap = (task.goal - state)[:, 0] / BLOCK
        wanted = gap @ torch.linalg.pinv(self.model.motor.weight).T
        return (wanted + 0.02 * torch.randn_like(wanted)).clamp(-STEP, STEP).repeat(1, BLOCK)


def world(state, action, motor, noise: float = 1e-3):
    moved = (action.unflatten(1, (BLOCK, 2)) * torch.tensor(motor)).sum(1)[:, None]
    return state + moved + noise * torch.randn_like(state)


def learner(settings: Settings | None = None) -> tuple[Plane, Adjusting]:
    torch.manual_seed(0)
    model = Plane()
    state, action = torch.randn(300, 1, 2), STEP * (2 * torch.rand(300, 2 * BLOCK) - 1)
    known = Transitions(state, action, world(state, action, [1.0, 1.0]))
    cost = Cost(model.action)
    usual = Usual.of(model, cost, Task(torch.zeros(1, 1, 2)), known)
    settings = settings or Settings(window=32, steps=60, rate=0.02, batch=32)
    return model, Adjusting(Straight(model), model, [model.motor], cost, usual, known, settings)


def episodes(actor: Adjusting, motor, blocks: int = 12) -> torch.Tensor:
    """Sixteen episodes towards the origin; returns how near they end, `(16,)`."""
    angle = torch.arange(16) * torch.pi / 8
    state, rows = torch.stack([angle.cos(), angle.sin()], 1)[:, None], torch.arange(16)
    actor.begin(16)
    for _ in range(blocks):
        state = world(state, actor.act(state, Task(torch.zeros(1, 1, 2)), rows), motor)
    return state.norm(dim=(1, 2))


def test_mirrored_controls_are_learned_back_and_the_old_ones_are_not_forgotten():
    model, actor = learner()
    assert (episodes(actor, [1.0, 1.0]) < 0.2).all()
    assert actor.told.updates == 0, "nothing surprised"
    episodes(actor, [-1.0, -1.0])
    assert (episodes(actor, [-1.0, -1.0]) < 0.2).all(), "learned back"
    assert torch.allclose(model.motor.weight, -torch.eye(2), atol=0.1) and actor.told.updates > 0
    spent = actor.told.updates
    episodes(actor, [-1.0, -1.0])
    assert actor.told.updates == spent, "usual again: nothing to learn"
    episodes(actor, [1.0, 1.0])
    assert (episodes(actor, [1.0, 1.0]) < 0.2).all()
    assert actor.told.recognised >= 1 and actor.told.updates == spent, "the old world is known: taken up, not learned"


class Direct(Policy):
    """Was distilled in the plane as it was: half of the way to the goal, as far as the bounds allow."""

    def __init__(self) -> None:
        super().__init__(2, low=[-STEP] * 2 * BLOCK, high=[STEP] * 2 * BLOCK)

    def forward(self, state, goal):
        return self._turned((goal - state)[:, 0].div(2 * BLOCK).clamp(-STEP, STEP).repeat(1, BLOCK))


def test_the_policy_is_turned_with_the_motors_and_back():
    _, actor = learner()
    actor.decides = actor.policy = policy = Direct()
    motor = [-1.0, 0.5]
    assert (episodes(actor, [1.0, 1.0]) < 0.2).all() and policy.turned is None
    away = torch.ones(16, 1, 2)
    for _ in range(2):
        episodes(actor, motor)
    assert torch.allclose(policy.turned, torch.diag(torch.tensor([-1.0, 2.0])), atol=0.2)
    assert (episodes(actor, motor) < 0.2).all(), "without learning anything, it acts as before"
    action = policy.act(away, Task(torch.zeros(1, 1, 2)))
    assert (action.abs() <= STEP + 1e-6).all() and (action[:, 0] > 0).all() and (action[:, 1] < 0).all()
    again = Policy(**policy.config)
    assert torch.equal(again.turned, policy.turned), "it is saved with the policy"
    for _ in range(2):
        episodes(actor, [1.0, 1.0])
    assert actor.told.recognised == 1 and policy.turned is None, "the old motors are recognised"


def test_without_a_surprise_nothing_is_learned():
    model, actor = learner()
    before = model.motor.weight.clone()
    for _ in range(4):
        episodes(actor, [1.0, 1.0])
    assert actor.told.blocks > 500 and actor.told.surprises == actor.told.updates == 0
    assert torch.equal(model.motor.weight, before)
    assert len(actor.memory.error) == actor.told.blocks, "but everything is remembered"
    assert (actor.memory.promised - actor.memory.paid).abs().max() < 0.05


def test_a_surprise_that_stays_is_given_up():
    _, actor = learner(Settings(window=16, steps=2, rate=0.02, batch=16, least=1, most=2))
    generator = torch.Generator().manual_seed(0)
    actor.begin(16)
    for _ in range(12):
        actor.act(torch.randn(16, 1, 2, generator=generator), Task(torch.zeros(1, 1, 2)), torch.arange(16))
    assert actor.told.given_up >= 1 and actor.told.updates <= 2 * 2 * (1 + actor.told.given_up)


def test_changed_motors_are_found_and_recordings_translated():
    model, actor = learner()
    state, action = torch.randn(64, 1, 2), STEP * (2 * torch.rand(64, 2 * BLOCK) - 1)
    for motor in ([-1.0, -1.0], [2.0, 2.0], [0.5, -1.5]):
        found = motors(model, Transitions(state, action, world(state, action, motor)), 1e-6)
        assert torch.allclose(found, torch.diag(torch.tensor(motor)), atol=0.1), motor
    weak = translated(actor.recordings, torch.diag(torch.tensor([0.5, 0.5])), model)
    assert 0 < len(weak.state) < len(actor.recordings.state), "twice the action cannot be done everywhere"
    assert (weak.action.abs() <= 1.06 * STEP).all()
    after = predicted(model, weak.state, weak.action * 0.5)
    assert torch.allclose(after, weak.after, atol=5e-3)
    assert not len(translated(actor.recordings, torch.zeros(2, 2), model).state)


def test_mistakes_are_named():
    model, actor = learner()
    with pytest.raises(UserError, match="window of 8"):
        Settings(window=2)
    wrong = Transitions(torch.zeros(3, 1, 2), torch.zeros(3, 1), torch.zeros(3, 1, 2))
    with pytest.raises(UserError, match="do not fit"):
        Adjusting(Straight(model), model, [model.motor], Cost(model.action), actor.usual, wrong)
