"""Recordings as steps of a world model: what configurator and learning from surprise are measured against."""

import torch

from jepa_pretrain.agent.sight import encoded
from jepa_pretrain.agent.surprise import Transitions
from jepa_pretrain.agent.world_model import WorldModel
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import windows


@torch.no_grad()
def transitions(model: WorldModel, episodes: list[Episode]) -> Transitions:
    """All steps of the model that lie in recordings, from every frame on.

    Args:
        model: encodes; its block is the step.
        episodes: recordings.

    Raises:
        UserError: no episode is as long as a block, or actions of another width.
    """
    starts = windows([len(one.frames) for one in episodes], model.block)
    if not len(starts):
        raise UserError(f"no episode is {model.block} steps long, which is one step of this world model")
    width = episodes[0].actions.shape[1]
    if width * model.block != model.action.width:
        raise UserError(f"these recordings have {width} action numbers, the agent {model.action.width // model.block}")
    states = encoded(model, episodes)
    actions = torch.cat([torch.cat([one.actions, torch.zeros(1, width)]) for one in episodes])
    blocks = actions[starts[:, None] + torch.arange(model.block)].flatten(1)  # (M, A)
    return Transitions(states[starts], blocks, states[starts + model.block])
