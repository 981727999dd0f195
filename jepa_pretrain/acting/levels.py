"""`jepa-pretrain agent levels`: a world model becomes the lowest level of a hierarchy that plans.

The levels above are H-JEPA's (`methods/hjepa.py`), trained together on the states of the world model, which stays as
it is: so flat planning with it is the fair comparison. A hierarchy that `fit` has trained whole is taken as it is.
"""

import time
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from jepa_pretrain.acting.climb import Run, Shape, check, climb
from jepa_pretrain.acting.load import default_planner
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.folder import load_agent, save_agent
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.levels import levels as on_levels
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.planners.hierarchical import Hierarchical
from jepa_pretrain.agent.sight import joined, looks
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes, windows
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.hierarchy import Hierarchy, Moments
from jepa_pretrain.models.world import World

WINDOWS = 512  # recorded stretches that tell what macro-actions there are, and how far a step leads
HORIZON = 8  # steps that a single level looks ahead


def levels(
    world: str,
    data: str,
    out: str,
    strides: tuple[int, ...] = (4, 2),
    width: int = 32,
    macro: int = 8,
    values: int = 0,
    horizon: int = 4,
    steps: int = 800,
    batch_size: int = 512,
    seed: int = 0,
) -> None:
    """Train levels above a world model on recorded behaviour, and write an agent that plans on all of them.

    Args:
        world: Folder of a world model, or of an agent of `agent critic`, whose critic a single level goes on with; or
            of a hierarchy with actions that `fit` has trained: its levels are taken.
        data: Trajectory shards of `agent collect`.
        out: Folder for the agent.
        strides: Steps of the level below in one step, of the second level and up; [] for one level.
        width: Of the upper levels' states; 0 for those of the world model as they are (HWM, one latent space).
        macro: Width of the macro-actions.
        values: Of a discrete latent variable in the lowest level, for what cannot be known; 0 for none. Then the
            dynamics are trained anew, on the states as they are.
        horizon: Own steps that upper levels look ahead at most.
        steps: Training steps.
        batch_size: Stretches of behaviour per step.
        seed: Names the initial weights and the order.
    """
    began, console = time.perf_counter(), Console(highlight=False, soft_wrap=True)
    torch.manual_seed(seed)
    shape = Shape(tuple(strides), width, macro, values)
    episodes = read_episodes(data, console=console)
    (found, critics), told = _given(world), "as they were trained"
    if isinstance(found, World):
        check(shape)
        found, told = climb(found, episodes, shape, Run(steps, batch_size, seed=seed), console)
    if not isinstance(found, Hierarchy):
        raise UserError(f"{world} holds an encoder, and neither a world model nor levels: `agent train` makes one")
    folder = save_agent(agent_on(found, episodes, horizon, seed, critics), out)
    console.print(f"{len(found.levels)} levels in {time.perf_counter() - began:.0f} s: {told}; in {folder}")


def _given(folder: str) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The model in a folder, and the critics of the agent that it may be."""
    if not (Path(folder) / "agent.json").is_file():
        return FrozenEncoder.load(folder).encoder, {}
    mind = load_agent(folder)
    if not isinstance(mind.model, Learned):
        raise UserError(f"{folder} is an agent without one world model of its own: give that of `agent train`")
    return mind.model.world, dict(mind.cost.critics)


def agent_on(
    hierarchy: Hierarchy,
    episodes: list[Episode],
    horizon: int,
    seed: int,
    critics: dict[str, nn.Module] | None = None,
) -> Agent:
    """An agent that plans on all levels of a hierarchy.

    Args:
        hierarchy: Trained.
        episodes: Recordings, which tell the bounds of actions and what macro-actions there are.
        horizon: Own steps that upper levels look ahead at most.
        seed: Of which recordings are looked at, and of what the planner draws.
        critics: In place of the distance to the goal, where there is one level; levels above set sub-goals, which
            critics know nothing of.
    """
    acted, block = episodes[0].about.get("actions"), hierarchy.levels[0].stride * hierarchy.tubelet
    if acted is None or "low" not in acted:
        raise UserError("the recordings do not say the bounds of actions: levels plan actions that are numbers")
    low, high = (torch.tensor(acted[key]).repeat(block) for key in ("low", "high"))
    searches = [CEM(samples=64, iterations=3, elites=8) for _ in hierarchy.levels[1:]]
    model, uppers = on_levels(hierarchy, Continuous(low, high), moments(hierarchy, episodes, seed), searches, horizon)
    ahead = hierarchy.levels[1].stride if uppers else HORIZON
    goal, critics = torch.zeros(1, model.grid_tokens, model.width), {} if uppers else critics or {}
    task = Task(goal, ahead, {}, dict.fromkeys(critics, 1.0)) if critics else Task(goal, ahead)
    planner = Hierarchical(default_planner(model), uppers) if uppers else default_planner(model)
    return Agent(model, Cost(model.action, critics), planner, task, seed=seed)


@torch.no_grad()
def moments(hierarchy: Hierarchy, episodes: list[Episode], seed: int) -> list[Moments]:
    """States and (macro-)actions of every level in recordings.

    Args:
        hierarchy: Trained.
        episodes: Recordings; those shorter than its clips tell nothing here.
        seed: Names the stretches.
    """
    starts = windows([len(one.frames) for one in episodes], hierarchy.frames - 1)
    if len(starts) < 2:
        raise UserError(f"the recordings hold no stretches of {hierarchy.frames} frames: record longer episodes")
    some = starts[torch.randperm(len(starts), generator=torch.Generator().manual_seed(seed))[:WINDOWS]]
    frames = torch.cat([one.frames for one in episodes])
    block = hierarchy.levels[0].stride * hierarchy.tubelet
    rows = looks([len(one.frames) for one in episodes], block, hierarchy.glances)
    width = episodes[0].actions.shape[1]
    actions = torch.cat([torch.cat([one.actions, torch.zeros(1, width)]) for one in episodes])
    found = []
    for part in some.split(64):
        at = part[:, None] + torch.arange(hierarchy.frames)  # (B, T)
        clip = joined(frames, rows[at.flatten()]).unflatten(0, at.shape)  # (B, T, 3 * frames, H, W)
        found.append(hierarchy.moments(clip.transpose(1, 2), actions[at]))
    return [
        Moments(torch.cat([one.states for one in level]), torch.cat([one.actions for one in level]))
        for level in zip(*found, strict=True)
    ]
