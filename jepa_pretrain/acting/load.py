"""A trained world model, or a whole agent, from its folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import INTRINSIC, Cost
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
    return bare([load_world(folder).world], seed)


def bare(worlds: list[World], seed: int = 0) -> Agent:
    """An agent that knows the distance to its goal alone.

    Args:
        worlds: Its world model, or the members of an ensemble.
        seed: Of what its planner draws.
    """
    models = [Learned(one) for one in worlds]
    model = models[0] if len(models) == 1 else Ensemble(models)
    task = Task(torch.zeros(1, model.grid_tokens, model.width), HORIZON)
    return Agent(model, Cost(model.action), default_planner(model), task, seed=seed)


def weighted(agent: Agent, weights: Mapping[str, float]) -> Task:
    """An agent's task with other weights: u for what is known as an intrinsic term, v for the agent's critics.

    Args:
        agent: Whose task and critics.
        weights: By name; what is not named keeps its weight, and 0 leaves a term out.

    Raises:
        UserError: A name that is neither a term nor a critic of this agent.
    """
    critics = set(agent.cost.critics)
    unknown = sorted(weights.keys() - critics - set(INTRINSIC))
    if unknown:
        known = ", ".join((*INTRINSIC, *sorted(critics)))
        raise UserError(f"no term or critic of this agent is called {', '.join(unknown)}; known: {known}")
    merged = {name: one for name, one in {**agent.task.u, **agent.task.v, **weights}.items() if one}
    u, v = ({name: merged[name] for name in merged if (name in critics) == learned} for learned in (False, True))
    return replace(agent.task, u=u, v=v)


def default_planner(model: WorldModel) -> Planner:
    """The gradient planner where actions are numbers, a beam where they are choices."""
    return Gradient(starts=1) if isinstance(model.action, Continuous) else Beam()
