"""A trained world model, or a whole agent, from its folder."""

from dataclasses import replace
from pathlib import Path

import torch

from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.folder import load_agent
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.levels import LevelModel
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous, Ensemble, WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.world import World

HORIZON = 8  # model steps that are looked ahead without a critic


def load_world(folder: str) -> Learned:
    """The world model in an exported folder, as planners want it.

    Args:
        folder: Of `agent train`, or the `export` of a `fit`.

    Raises:
        UserError: There is none, or an encoder that predicts nothing.
    """
    found = FrozenEncoder.load(folder).encoder
    if not isinstance(found, World):
        raise UserError(f"{folder} holds an encoder, no world model: `agent train` makes one")
    return Learned(found)


def load_size(model: WorldModel) -> int:
    """Height and width of the pictures that a trained world model, or the first of an ensemble, takes."""
    first = model.models[0] if isinstance(model, Ensemble) else model
    if not isinstance(first, Learned | LevelModel):
        raise UserError("this agent has no trained world model: it cannot be shown pictures")
    return first.image_size


def load_mind(folder: str, seed: int = 0) -> Agent:
    """The agent in a folder; around a bare world model, one that knows the distance to its goal alone.

    Args:
        folder: Of an agent or a world model.
        seed: Of what its planner draws.
    """
    if (Path(folder) / "agent.json").is_file():
        return replace(load_agent(folder), seed=seed)
    model = load_world(folder)
    task = Task(torch.zeros(1, model.grid_tokens, model.width), HORIZON)
    return Agent(model, Cost(model.action), default_planner(model), task, seed=seed)


def default_planner(model: WorldModel) -> Planner:
    """The gradient planner where actions are numbers, a beam where they are choices."""
    return Gradient(starts=1) if isinstance(model.action, Continuous) else Beam()
