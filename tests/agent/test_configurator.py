"""Reacting and thinking: in worlds that are known, where it is known which of the two is right."""

import json
from dataclasses import replace

import pytest
import torch
from known_worlds import Known

from jepa_pretrain.agent.actor import Planning
from jepa_pretrain.agent.configurator import (
    LITTLE,
    MUCH,
    REACT,
    STALLED,
    Choice,
    Configurator,
    Rules,
    Situation,
    Thrift,
)
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.mixture import Mixture, Progress
from jepa_pretrain.agent.named import read_named, staged
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.stages import Stages
from jepa_pretrain.agent.surprise import Expecting, Transitions, Usual
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.thrift import Lessons, Noting, Trying, imagine_lessons, learn
from jepa_pretrain.agent.world_model import Continuous
from jepa_pretrain.contracts import UserError

STEP = 0.1


class Plane(Known):
    """An open plane: s = (x, y), a = (dx, dy)."""

    def __init__(self) -> None:
        super().__init__(2, Continuous(torch.full((2,), -STEP), torch.full((2,), STEP)))

    def step(self, state, action, z=None):
        return state + action[:, None]


class Half:
    """A policy that goes to its goal where x is above 0, and elsewhere stands still."""

    def act(self, state, task, rows=None):
        gap = (task.goal - state)[:, 0].clamp(-STEP, STEP)
        return torch.where(state[:, 0, :1] > 0, gap, torch.zeros_like(gap))


WORLD = Plane()
COST = Cost(WORLD.action)
USUAL = Usual(torch.linspace(0, 1e-3, 101), torch.tensor(0.15), torch.tensor(STEP**2))
GOAL = torch.tensor([[[1.0, 1.0]]])


def mixture(chooser=None) -> Mixture:
    settings = Configurator(chooser or Rules(gain=0.2), USUAL, Gradient(1, 5), 2)
    return Mixture(WORLD, COST, Gradient(1, 20), Half(), settings)


def scattered(count: int = 64) -> torch.Tensor:
    return 2 * torch.rand(count, 1, 2, generator=torch.Generator().manual_seed(0)) - 1


def test_rules_think_only_where_the_policy_is_wrong():
    actor, state = mixture(), scattered()
    actor.begin(len(state))
    action = actor.act(state, Task(GOAL, 3))
    wrong = state[:, 0, 0] <= 0
    assert torch.equal(actor.choice.mode != REACT, wrong) and wrong.any() and not wrong.all()
    assert torch.equal(action[~wrong], Half().act(state, Task(GOAL))[~wrong])
    assert ((action[wrong] * (GOAL - state)[wrong, 0]).sum(1) > 0.05).all(), "a plan leads to the goal"
    assert actor.spent.thinking == pytest.approx(float(wrong.float().mean()))


def test_a_surprise_is_thought_about_and_a_dead_end_thought_about_much():
    quiet = dict.fromkeys(Situation._fields, torch.full((3,), 2.0)) | dict(
        ahead=torch.full((3,), 3.0), surprise=torch.tensor([0.1, 9.0, 0.1]), stalled=torch.tensor([1.0, 1.0, 8.0])
    )
    choice = Rules(patience=4).choose(Situation(**quiet))
    assert choice.mode.tolist() == [REACT, LITTLE, MUCH] and choice.why[2] == STALLED
    later = Rules(patience=4).choose(Situation(**quiet | dict(stalled=torch.tensor([1.0, 1.0, 9.0]))))
    assert later.mode[2] == LITTLE, "much thinking that did not help is not repeated at once"


def test_each_environment_is_surprised_by_its_own_world():
    actor, state = mixture(), torch.full((2, 1, 2), 0.5)
    actor.begin(2)
    action = actor.act(state, Task(GOAL, 3))
    there = WORLD.step(state, action)
    there[1] = state[1] - action[1]  # the second one is thrown back
    actor.act(there, Task(GOAL, 3), torch.arange(2))
    surprise = actor.situation.surprise
    assert surprise[0] < 1e-3 and surprise[1] > Rules().surprise
    assert actor.choice.mode.tolist() == [REACT, LITTLE]
    actor.forget(torch.tensor([1]))
    actor.act(there, Task(GOAL, 3), torch.arange(2))
    assert actor.situation.surprise[1] == 0, "a new episode was not expected to look like anything"


class Wrong:
    """A policy that runs away from its goal."""

    def act(self, state, task, rows=None):
        return (state - task.goal)[:, 0].clamp(-STEP, STEP)


class Fixed:
    """Thinks little or much, as a script says of every decision."""

    def __init__(self, *modes: int) -> None:
        self.modes = list(modes)

    def choose(self, situation):
        return Choice(torch.full_like(situation.cost, self.modes.pop(0), dtype=torch.int64), torch.zeros(0))


@pytest.mark.parametrize(("policy", "better"), [(Wrong(), True), (Half(), False)])
def test_what_is_left_of_a_plan_is_handed_over_where_it_is_better_than_the_policys(policy, better):
    """A search of one step at a rate of nearly nothing returns what it began with."""
    still, modes = Gradient(1, 1, rate=1e-6), Fixed(MUCH, LITTLE, MUCH, REACT, LITTLE)
    actor = Mixture(WORLD, COST, still, policy, Configurator(modes, USUAL, still, 2))
    state, task, rows = torch.full((3, 1, 2), 0.5), Task(GOAL, 4), torch.arange(3)
    towards = torch.full((3, 2), 0.9 * STEP)
    actor.begin(3)
    assert actor.act(state, task, rows).abs().max() < 1e-3 * STEP, "thinking much begins with nothing"
    actor.planning[MUCH].last |= {row: towards[:1].expand(3, -1) for row in (0, 1)}
    actor.planning[MUCH].forget(rows[2:])
    policys = policy.act(state, task)
    little = actor.act(state, task, rows)
    assert torch.allclose(little[:2], towards[:2] if better else policys[:2], rtol=1e-2)
    assert torch.allclose(little[2], policys[2], rtol=1e-2), "without a plan, what the policy would do"
    left = {row: one.clone() for row, one in actor.planning[LITTLE].last.items()}
    much = actor.act(state, task, rows)
    assert torch.allclose(much[:2], left[0][0].expand(2, -1) if better else torch.zeros(2, 2), atol=1e-3)
    actor.act(state, task, rows)  # reacts: what was planned before is of elsewhere
    assert torch.allclose(actor.act(state, task, rows), policys, rtol=1e-2)


def test_progress_counts_decisions_without_a_way_on():
    progress, rows = Progress.of(2), torch.arange(2)
    counts = [progress.see(rows, torch.tensor(cost)).tolist() for cost in ([9.0, 9.0], [8.9, 8.0], [8.8, 7.0])]
    assert counts == [[0, 0], [1, 0], [2, 0]]


def test_thrift_learns_where_thinking_pays():
    torch.manual_seed(0)
    actor, state, generator = mixture(), scattered(200), torch.Generator().manual_seed(1)
    lessons = imagine_lessons(actor, Task(GOAL, 3), state, GOAL.expand(200, -1, -1))
    thrift = Thrift(enough=0.5)
    learn(thrift, lessons, generator, 120, 64)
    learned, fresh = mixture(thrift), 2 * torch.rand(200, 1, 2) - 1
    learned.begin(200)
    learned.act(fresh, Task(GOAL, 3))
    sure = fresh[:, 0, 0].abs() > 0.1
    right = (learned.choice.mode != REACT) == (fresh[:, 0, 0] <= 0)
    assert right[sure].float().mean() > 0.95
    assert (learned.choice.mode == MUCH).float().mean() < 0.1, "little thinking is as good here"


def test_lessons_of_trials_are_what_came_off_the_cost():
    actor = mixture(Trying(torch.Generator().manual_seed(0), Rules()))
    noting, state, task = Noting(actor), scattered(32), Task(GOAL, 3)
    noting.begin(32)
    for _ in range(3):
        state = WORLD.step(state, noting.act(state, task, torch.arange(32)))
    noting.act(state[:16], task, torch.arange(16))  # the others have arrived
    lessons = noting.lessons()
    assert lessons.fall.shape == (96, 3) and (lessons.fall.isfinite().sum(1) == 1).all()
    still = (lessons.fall[:, REACT].abs() < 1e-6) & (lessons.features[:, 1].abs() < 1e-6)
    assert still.any(), "reacting brought nothing where the policy stands still"
    last = lessons.features[-16:, 0]
    assert torch.allclose(lessons.fall[-16:].nan_to_num().sum(1), last), "who arrives has nothing left to pay"


def test_what_is_usual_is_measured_and_kept_expectations_are_settled():
    state = scattered(50)
    action = (scattered(50)[:, 0] * STEP).roll(1, 0)
    noise = 0.01 * torch.randn(50, 1, 2, generator=torch.Generator().manual_seed(3))
    known = Transitions(state, action, WORLD.step(state, action) + noise)
    usual = Usual.of(WORLD, COST, Task(GOAL, 2), known)
    expected = torch.quantile(noise.square().mean((1, 2)), 0.5)
    assert torch.allclose(usual.errors[50], expected) and usual.ratio(usual.errors[99]) == 1
    expecting, rows = Expecting(), torch.tensor([4, 7])
    expecting.expect(rows, state[:2], action[:2], known.after[:2])
    expecting.forget(torch.tensor([4]))
    settled = expecting.settle(torch.tensor([4, 7, 9]), known.after[[0, 1, 2]])
    assert settled.rows.tolist() == [1] and settled.error.item() == 0
    assert expecting.settle(torch.tensor([7]), state[:1]) is None, "settled once"


def test_vectors_become_goals_and_sub_goals_are_pursued_in_order(tmp_path):
    mixed = torch.tensor([[2.0, 0.3], [0.1, 1.0]])
    bank = scattered(300)
    readout = Readout.of(bank, bank[:, 0] @ mixed)
    (tmp_path / "tasks.json").write_text(json.dumps(
        {"tour": {"goals": (torch.tensor([[0.5, 0.0], [0.5, 0.5], [-0.5, 0.5]]) @ mixed).tolist(), "near": 0.1,
                  "horizon": 2, "u": {"goal": 2.0}, "keep_out": [{"centre": [9.0, 9.0], "radius": 1.0}]}}
    ))  # fmt: skip
    named = read_named(f"{tmp_path}/tasks.json:tour")
    task, stages = staged(named, Task(GOAL, 5), readout, 0.1, None)
    assert (task.horizon, task.u, task.guardrails[0].hard) == (2, {"goal": 2.0}, True)
    assert torch.allclose(stages.goals[1, 0], torch.tensor([0.5, 0.5]), atol=2e-2)
    actor, state, passed = Planning(WORLD, COST, Gradient(1, 10)), torch.zeros(2, 1, 2), []
    actor.begin(2), stages.begin(2)
    for _ in range(25):
        goal, turned = stages.follow(state, torch.arange(2))
        actor.forget(turned.nonzero()[:, 0])
        state = WORLD.step(state, actor.act(state, replace(task, goal=goal)))
        passed.append(state[0, 0].clone())
    way = torch.stack(passed)
    arrived = [int((way - one).norm(dim=1).lt(0.12).nonzero()[0]) for one in stages.goals[:, 0]]
    assert arrived == sorted(arrived) and stages.at.tolist() == [2, 2]
    with pytest.raises(UserError, match="outside of what was recorded"):
        readout.goals(torch.tensor([[50.0, 0.0]]))
    with pytest.raises(UserError, match="has no readout"):
        staged(named, Task(GOAL, 5), None, 0.1, None)


def test_mistakes_in_tasks_are_named(tmp_path):
    file = tmp_path / "t.json"
    for value, words in (
        ({"a": {"goals": []}}, "goals are a list"),
        ({"a": {"goals": [[1]], "gaols": 1}}, "needs goals"),
        ({"a": {"goals": [[1]], "horizon": 0}}, "horizon"),
        ({"a": {"goals": [[1]]}, "b": {"goals": [[1]]}}, "several tasks"),
        ({"a": {"goals": [[1]], "keep_out": [{"centre": [1]}]}}, "keep_out"),
    ):
        file.write_text(json.dumps(value))
        with pytest.raises(UserError, match=words):
            read_named(str(file))
    with pytest.raises(UserError, match="no task 'c'"):
        read_named(f"{file}:c")
    with pytest.raises(UserError, match="positive near"):
        Stages(GOAL, 0.0)
    with pytest.raises(UserError, match="patience"):
        Rules(patience=0)
    with pytest.raises(UserError, match="price"):
        Thrift(price=-1.0)
    assert Lessons.join([Lessons(torch.zeros(1, 6), torch.zeros(1, 3))] * 2).fall.shape == (2, 3)
