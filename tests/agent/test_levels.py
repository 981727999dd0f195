"""A hierarchy as levels of a search: the same states and actions as `Hierarchy.moments`, and plans on all levels."""

import pytest
import torch
from small_hierarchies import WIDTH, first, hierarchy, upper
from torch import nn

from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.levels import LevelModel, levels, model_of, pace_of
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.hierarchical import Hierarchical
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.uncertainty import Stochastic
from jepa_pretrain.agent.world_model import Continuous, WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.latent import Discrete

B, T, A = 3, 9, 2
ACTION = Continuous(torch.full((A,), -1.0), torch.full((A,), 1.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(window: int = 1, latent: bool = False):
    """Three levels whose steps are 1, 2 and 4 frames, with weights under which everything depends on its inputs."""
    torch.manual_seed(0)
    top = upper(2, inputs=4, latent=Discrete(WIDTH, 3) if latent else None)
    found = hierarchy(first(A), upper(2, inputs=A, window=window), top, reads=1)
    for p in found.parameters():
        nn.init.normal_(p, std=0.3)
    return found.eval()


CLIP = torch.randint(0, 256, (B, 3, T, 16, 16), dtype=torch.uint8, generator=seeded(1))
ACTIONS = torch.rand(B, T, A, generator=seeded(2)) * 2 - 1


def recorded(found):
    with torch.no_grad():
        return found.moments(CLIP, ACTIONS)


@pytest.mark.parametrize("window", [1, 2])
def test_states_and_lifts_are_those_of_the_hierarchy(window):
    found = made(window)
    moments, codes = recorded(found), Continuous(-torch.ones(4), torch.ones(4))
    models = [model_of(found, number, ACTION if number == 1 else codes) for number in (1, 2, 3)]
    for model, own in zip(models, moments, strict=True):
        assert isinstance(model, WorldModel) and not isinstance(model, Stochastic)
        torch.testing.assert_close(model.encode(CLIP[:, :, 0]), own.states[:, 0])
    assert [one.block for one in models] == [1, 2, 4]
    torch.testing.assert_close(models[0].encode(CLIP[:, :, 5]), moments[0].states[:, 5])
    for below, model, above in zip(moments, models[1:], moments[1:], strict=False):
        lifted = model.lift(below.states)
        assert lifted.shape[:2] == below.states.shape[:2]
        torch.testing.assert_close(lifted[:, ::2], above.states)
    assert not models[0].train().training and not any(p.requires_grad for p in found.parameters())


def test_predictions_are_the_predictors():
    found = made()
    for number, own in enumerate(recorded(found), start=1):
        width = own.actions.shape[2]
        model = LevelModel(found, number, Continuous(-torch.ones(width), torch.ones(width)))
        expected = found.levels[number - 1].predictor(own.states[:, :1], own.actions[:, :1])[:, 0]
        torch.testing.assert_close(model.step(own.states[:, 0], own.actions[:, 0]), expected)
        assert model.rollout(own.states[:, 0], own.actions).shape == own.states[:, 1:].shape


def test_a_latent_variable_makes_a_level_stochastic():
    found = made(latent=True)
    model = model_of(found, 3, Continuous(-torch.ones(4), torch.ones(4)))
    state, plan = torch.randn(B, 1, WIDTH), torch.zeros(B, 2, 4)
    assert isinstance(model, Stochastic) and model.chances == 3
    likeliest = found.levels[2].latent._log_prior(state).argmax(1)
    assert torch.equal(model.latents(state, torch.full((B, 3), 0.5)).argmax(1), likeliest)
    z = nn.functional.one_hot(likeliest, 3).float()
    torch.testing.assert_close(model.rollout(state, plan)[:, 0], model.step(state, plan[:, 0], z))
    assert not torch.allclose(model.step(state, plan[:, 0], z.roll(1, 1)), model.step(state, plan[:, 0], z))


@pytest.mark.parametrize("lifted", [True, False])
@pytest.mark.parametrize("latent", [True, False])
def test_an_agent_plans_on_three_levels(lifted, latent):
    found = made(latent=latent)
    moments = recorded(found)
    model, uppers = levels(found, ACTION, moments, [Gradient(2, 2), CEM(8, 2, 3)], horizon=3)
    macros = moments[2].actions.flatten(0, 1)
    torch.testing.assert_close((uppers[1].model.action.low + uppers[1].model.action.high) / 2, macros.mean(0))
    assert uppers[0].pace == pytest.approx(pace_of(moments[1].states)) and uppers[0].near < uppers[0].pace
    planner = Hierarchical(CEM(8, 2, 3), uppers, lifted)
    agent = Agent(model, Cost(ACTION), planner, Task(torch.zeros(1, 1, WIDTH), 2, samples=2), watched=True)
    agent.pursue(CLIP[:, :, 8])
    assert agent.act(CLIP[:, :, 0]).shape == (B, A)
    for thought in agent.last.plan.thoughts:
        assert thought.states.shape == (B, 3, 1, WIDTH) and (thought.steps > 0).any()
        assert thought.states[thought.steps > 0, 0].isfinite().all()


def test_mistakes_are_named():
    found = made()
    with pytest.raises(UserError, match="levels 1 to 3, not 4"):
        model_of(found, 4, ACTION)
    with pytest.raises(UserError, match="level 2 takes actions of width 4, found 2"):
        model_of(found, 2, ACTION)
    with pytest.raises(UserError, match="found 3 recordings and 1 planners"):
        levels(found, ACTION, recorded(found), [CEM(8, 2, 3)])
