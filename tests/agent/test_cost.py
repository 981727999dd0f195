"""The cost: each term is what it says, weights and critics add up, ensembles disagree where they should."""

import pytest
import torch
from known_worlds import Linear
from torch import nn

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.guardrails import HalfSpace, KeepOut
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous, Ensemble, WorldModel, imagine
from jepa_pretrain.contracts import UserError

ACTION = Continuous(torch.tensor([-1.0]), torch.tensor([2.0]))
STATES = torch.tensor([[[[1.0, 0]], [[3, 0]]], [[[0, 2]], [[0, 0]]]])  # (2, 2, 1, 2)
PLAN = torch.tensor([[[3.0], [-2]], [[0], [1]]])  # (2, 2, 1)
GOAL = torch.zeros(1, 1, 2)


class First(nn.Module):
    """A critic that says the state's first number, less the goal's."""

    def __init__(self, every_step: bool) -> None:
        super().__init__()
        self.every_step = every_step

    def forward(self, state, task):
        return state[:, 0, 0] - task.goal[:, 0, 0]


class Member(nn.Module):
    """A linear world that is wrong by `bias` wherever the first position is positive."""

    width, grid_tokens, block, frames = 4, 1, 1, 1

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.inner, self.bias = Linear(), bias
        self.action = self.inner.action

    def encode(self, frames):
        return self.inner.encode(frames)

    def step(self, state, action, z=None):
        return self.inner.step(state, action) + self.bias * (state[:, :, :1] > 0)

    def rollout(self, state, plan, z=None):
        states = []
        for action in plan.unbind(1):
            state = self.step(state, action)
            states.append(state)
        return torch.stack(states, 1)


def test_every_term_is_what_it_says():
    rails = (HalfSpace(torch.tensor([1.0, 0]), 2.0, "right"), KeepOut(torch.eye(2), torch.zeros(2), GOAL[0, 0], 1.5))
    task = Task(GOAL, 2, u={"goal": 1, "effort": 1, "bounds": 1, "uncertainty": 1}, guardrails=rails)
    terms = Cost(ACTION).intrinsic(STATES, PLAN, task, disagreement=torch.ones(2, 2))
    assert terms["goal"].tolist() == [[0.5, 4.5], [2, 0]]
    assert terms["effort"].tolist() == [[9, 4], [0, 1]]
    assert terms["bounds"].tolist() == [[1, 1], [0, 0]]
    assert terms["guardrail/right"].tolist() == [[0, 1], [0, 0]]
    assert terms["guardrail/keep out"].tolist() == [[0.5, 0], [0, 1.5]]
    assert terms["uncertainty"].tolist() == [[1, 1], [1, 1]]


def test_weights_critics_and_guardrails_add_up_over_all_steps():
    rail = HalfSpace(torch.tensor([1.0, 0]), 2.0, weight=10.0)
    cost = Cost(ACTION, {"every": First(True), "last": First(False)})
    task = Task(GOAL, 2, u={"goal": 2.0}, v={"every": 1.0, "last": 100.0}, guardrails=(rail,))
    expected = [2 * 5 + 10 + (1 + 3) + 100 * 3, 2 * 2]
    assert cost(STATES, PLAN, task).tolist() == expected
    charge = cost.charge(STATES, PLAN, task)
    assert charge.violation.tolist() == [[0, 1], [0, 0]]
    assert cost(STATES, PLAN, Task(GOAL, 2, u={})).tolist() == [0, 0]


def test_critics_see_the_goal_of_their_own_row():
    cost = Cost(ACTION, {"every": First(True)})
    task = Task(torch.tensor([[[1.0, 0]], [[2.0, 0]]]), 2, u={}, v={"every": 1.0})
    assert cost(STATES, PLAN, task).tolist() == [0 + 2, -2 - 2]
    assert task.of(torch.tensor([1, 1, 0])).goal[:, 0, 0].tolist() == [2, 2, 1]


def test_cost_has_gradients_in_states_and_plan_and_no_parameters_of_its_own():
    states, plan = STATES.clone().requires_grad_(), PLAN.clone().requires_grad_()
    task = Task(GOAL, 2, u={"goal": 1, "effort": 1, "bounds": 1}, v={"every": 1.0})
    cost = Cost(ACTION, {"every": First(True)})
    cost(states, plan, task).sum().backward()
    assert states.grad.abs().sum() > 0 and plan.grad.abs().sum() > 0
    assert not list(Cost(ACTION).parameters())


def test_ensemble_predicts_the_mean_and_knows_where_it_does_not_know():
    ensemble = Ensemble([Member(-0.5), Member(0.5)])
    assert isinstance(ensemble, WorldModel)
    state, plan = torch.tensor([[[2.0, 0, 0, 0]], [[-2.0, 0, 0, 0]]]), torch.zeros(2, 2, 2)
    states, disagreement = imagine(ensemble, state, plan)
    torch.testing.assert_close(states, Linear().rollout(state, plan))
    assert disagreement[0, 0] == pytest.approx(0.25)  # all four numbers are half off, either way
    assert disagreement[0, 1] > disagreement[0, 0] and (disagreement[1] == 0).all()
    assert imagine(Member(0.0), state, plan).disagreement is None


def test_uncertainty_keeps_a_plan_where_the_ensemble_agrees():
    ensemble, start = Ensemble([Member(-0.5), Member(0.5)]), torch.tensor([[[-2.0, 0, 0, 0]]])
    goal = torch.tensor([[[2.0, 0, 0, 0]]])
    bold, shy = (
        CEM(128, 5, 12).plan(
            ensemble, Cost(ensemble.action), start, Task(goal, 6, u=u), torch.Generator().manual_seed(0)
        )
        for u in ({"goal": 1.0}, {"goal": 1.0, "uncertainty": 100.0})
    )
    seen = [imagine(ensemble, start, one.actions).disagreement.sum() for one in (bold, shy)]
    assert seen[0] > 0.1 > seen[1]


def test_mistakes_are_named():
    with pytest.raises(UserError, match="two world models or more"):
        Ensemble([Member(0.0)])
    with pytest.raises(UserError, match="horizon of 1 or more"):
        Task(GOAL, 0)
    with pytest.raises(UserError, match=r"a goal is a state \(B, N, D\)"):
        Task(torch.zeros(3, 8, 8, 3))
    with pytest.raises(UserError, match="reads states of 3 numbers, found 2"):
        HalfSpace(torch.zeros(3), 0.0).violation(STATES)
