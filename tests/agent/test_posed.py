"""V-JEPA 2-AC behind the planners' protocol."""

import pytest
import torch

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.posed import Posed
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.action_predictor import ActionPredictor
from jepa_pretrain.models.action_world import ActionWorld
from jepa_pretrain.models.rotary_vit import TiledRotaryViT


def posed():
    torch.manual_seed(0)
    encoder = TiledRotaryViT(image_size=8, patch=4, width=16, depth=1, heads=1, frames=8, tubelet=2)
    predictor = ActionPredictor(16, encoder.grid, width=16, depth=1, heads=1)
    with torch.no_grad():
        for one in predictor.parameters():
            one.add_(torch.randn_like(one) * 0.2)  # so that actions matter from the first
    return Posed(ActionWorld(encoder, predictor), torch.full((7,), -0.2), torch.full((7,), 0.2))


def test_states_carry_the_pose_and_rollouts_are_the_worlds():
    model, frames, pose = posed(), torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8), torch.rand(2, 7)
    assert isinstance(model, WorldModel) and not model.train().world.training
    state = model.at(model.encode(frames), pose)
    assert state.shape == (2, model.grid_tokens, model.width) and torch.equal(state[:, -1, :7], pose)
    plan = torch.rand(2, 3, 7) * 0.1
    states, poses = model.world.rollout(model.world.encode(frames[:, :, None]), pose[:, None], plan)
    found = model.rollout(state, plan)
    torch.testing.assert_close(found[:, :, :-1], states)
    torch.testing.assert_close(found[:, :, -1, :7], poses)
    torch.testing.assert_close(model.step(state, plan[:, 0]), found[:, 0])
    with pytest.raises(UserError, match="no latent variable"):
        model.rollout(state, plan, torch.zeros(2, 3, 1))


def test_a_planner_comes_nearer_to_the_goal_than_standing_still():
    model = posed()
    state = model.at(model.encode(torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)), torch.zeros(2, 7))
    taken = torch.rand(2, 1, 7) * 0.4 - 0.2
    task = Task(model.rollout(state, taken)[:, -1], horizon=1)
    cost = Cost(model.action)
    plan = Gradient().plan(model, cost, state, task, torch.Generator().manual_seed(0)).actions
    end, still = (model.rollout(state, one)[:, -1] for one in (plan, torch.zeros_like(plan)))
    assert ((end - task.goal).square().mean((1, 2)) < 0.5 * (still - task.goal).square().mean((1, 2))).all()
