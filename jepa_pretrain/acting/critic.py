"""`jepa-pretrain agent critic`: how many steps it is to a goal, learned from recordings alone."""

import time
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor

from jepa_pretrain.acting.load import default_planner, load_mind
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import StepsToGo
from jepa_pretrain.agent.folder import save_agent
from jepa_pretrain.agent.learning import learn_steps
from jepa_pretrain.agent.sight import encoded, encoded_at_rest
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes

HORIZON = 8  # model steps that the agent looks ahead


def critic(
    world: str,
    data: str,
    out: str,
    steps: int = 2000,
    batch_size: int = 512,
    lr: float = 1e-3,
    expectile: float = 0.9,
    discount: float = 0.98,
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
        expectile: Weight of a way shorter than expected, in .5..1: the more the recordings wander, the higher.
        discount: Of each step of the model: what is further than 1 / (1 - discount) steps hardly counts as further.
        goals: any - half of them any recorded states; episode - all of the same episode, where each has a layout of its
            own. The other half lie ahead in the same episode.
        seed: Names the initial weights and the pairs.
    """
    if not 0.5 <= expectile < 1:
        raise UserError(f"an expectile lies in .5..1, found {expectile}")
    began, console = time.perf_counter(), Console(highlight=False, soft_wrap=True)
    model = load_mind(world).model
    states, resting = model_steps(model, read_episodes(data, console=console))
    torch.manual_seed(seed)
    made = StepsToGo(model.width, model.grid_tokens, discount)
    generator = torch.Generator().manual_seed(seed)
    loss = learn_steps(
        made, states, generator, steps, batch_size, lr,
        expectile=expectile, goals=resting, within=goals == "episode",
    )  # fmt: skip
    task = Task(torch.zeros(1, model.grid_tokens, model.width), HORIZON, {}, {"steps": 1.0})
    folder = save_agent(Agent(model, Cost(model.action, {"steps": made}), default_planner(model), task, seed=seed), out)
    console.print(f"{steps} steps in {time.perf_counter() - began:.0f} s: loss {loss:.4f}; in {folder}")


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
