"""`jepa-pretrain agent critic`: how many steps it is to a goal, learned from recordings alone."""

import time
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor

from jepa_pretrain.acting.load import default_planner, load_mind
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import StepsToGo, ToGoal
from jepa_pretrain.agent.folder import save_agent
from jepa_pretrain.agent.learning import learn_steps
from jepa_pretrain.agent.quasimetric import Quasimetric, learn_quasimetric
from jepa_pretrain.agent.sight import encoded, encoded_at_rest
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes

HORIZON = 8  # model steps that the agent looks ahead
DEFAULTS = {"iql": {"expectile": 0.9, "discount": 0.98}, "qrl": {"longest": 15.0}}  # of the objectives' own settings


def critic(
    world: str,
    data: str,
    out: str,
    steps: int = 2000,
    batch_size: int = 512,
    lr: float = 1e-3,
    objective: Literal["iql", "qrl"] = "iql",
    expectile: float | None = None,
    discount: float | None = None,
    longest: float | None = None,
    goals: Literal["any", "episode"] = "any",
    seed: int = 0,
) -> None:
    """Train a critic on recorded behaviour, and write it with its world model as an agent.

    Args:
        world: Folder of the world model, or of an ensemble.
        data: Trajectory shards of `agent collect`.
        out: Folder for the agent: the world model, the critic as its cost, a planner.
        steps: Training steps.
        batch_size: Pairs of state and goal per step.
        lr: First learning rate.
        objective: iql - by temporal differences, with an expectile; qrl - a quasimetric: states are pushed as far apart
            as recorded steps allow. For layouts that differ from episode to episode, with goals of the episode.
        expectile: Of iql, .9 if not given. Weight of a way shorter than expected, in .5..1: the more the recordings
            wander, the higher.
        discount: Of iql and each step of the model, .98 if not given: what is further than 1 / (1 - discount) steps
            hardly counts as further.
        longest: Of qrl, 15 if not given. Steps of the model, about the longest way; what is further is hardly pushed.
        goals: any - half of them any recorded states; episode - all of the same episode, where each has a layout of its
            own. The other half lie ahead in the same episode.
        seed: Names the initial weights and the pairs.
    """
    given = _settings(objective, {"expectile": expectile, "discount": discount, "longest": longest})
    began, console = time.perf_counter(), Console(highlight=False, soft_wrap=True)
    model = load_mind(world).model
    states, resting = model_steps(model, read_episodes(data, console=console))
    torch.manual_seed(seed)
    generator, within = torch.Generator().manual_seed(seed), goals == "episode"
    made: ToGoal
    if objective == "qrl":
        made = Quasimetric(model.width, model.grid_tokens)
        loss = learn_quasimetric(
            made, states, generator, steps, batch_size, lr, longest=given["longest"], goals=resting, within=within
        )
    else:
        made = StepsToGo(model.width, model.grid_tokens, given["discount"])
        loss = learn_steps(
            made, states, generator, steps, batch_size, lr, expectile=given["expectile"], goals=resting, within=within
        )
    task = Task(torch.zeros(1, model.grid_tokens, model.width), HORIZON, {}, {"steps": 1.0})
    folder = save_agent(Agent(model, Cost(model.action, {"steps": made}), default_planner(model), task, seed=seed), out)
    console.print(f"{steps} steps in {time.perf_counter() - began:.0f} s: loss {loss:.4f}; in {folder}")


def _settings(objective: str, given: dict[str, float | None]) -> dict[str, float]:
    """The objective's own settings, its defaults where none are given."""
    own = DEFAULTS[objective]
    idle = sorted(name for name, value in given.items() if value is not None and name not in own)
    if idle:
        raise UserError(f"{objective} has no {', '.join(idle)}; it has: {', '.join(own)}")
    found = {name: default if given[name] is None else given[name] for name, default in own.items()}
    if "expectile" in own and not 0.5 <= found["expectile"] < 1:
        raise UserError(f"an expectile lies in .5..1, found {found['expectile']}")
    if "longest" in own and not found["longest"] > 0:
        raise UserError(f"the longest way takes some steps, found {found['longest']}")
    return found


def model_steps(model: WorldModel, episodes: list[Episode]) -> tuple[list[Tensor], list[Tensor] | None]:
    """States at every step of the model, `(T, N, D)`: each episode once for every frame of the first block.

    Args:
        model: Encodes.
        episodes: Recordings.

    Returns:
        The states, and the same as goals, at rest; None where a state does not tell what moves.
    """

    def cut(states: Tensor) -> list[Tensor]:
        whole = states.split([len(one.frames) for one in episodes])
        return [one[first :: model.block] for one in whole for first in range(min(model.block, len(one)))]

    return cut(encoded(model, episodes)), cut(encoded_at_rest(model, episodes)) if model.frames > 1 else None
