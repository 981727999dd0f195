"""`jepa-pretrain agent critic`: how many steps it is to a goal, learned from recordings alone."""

import json
import time
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from jepa_pretrain.acting.load import load_world
from jepa_pretrain.agent.critic import StepsToGo
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.learning import learn_steps
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes
from jepa_pretrain.evals.result import check_out
from jepa_pretrain.interop.weights import fill
from jepa_pretrain.untrusted import parse_json

CHUNK = 512  # frames encoded at a time
WIDEST = 1 << 14  # of anything that a file describes


def critic(agent: str, data: str, out: str, steps: int = 2000, batch_size: int = 512, seed: int = 0) -> None:
    """Train a critic on recorded behaviour: how many steps of a world model from one state to another.

    Args:
        agent: Folder of the world model.
        data: Trajectory shards of `agent collect`.
        out: File for the critic, such as critic.safetensors.
        steps: Training steps.
        batch_size: Pairs of state and goal per step.
        seed: Names the initial weights and the pairs.
    """
    check_out(out)
    began, console = time.perf_counter(), Console(highlight=False, soft_wrap=True)
    model = load_world(agent)
    states = model_steps(model, read_episodes(data, console=console))
    torch.manual_seed(seed)
    made = StepsToGo(model.width, model.grid_tokens)
    loss = learn_steps(made, states, torch.Generator().manual_seed(seed), steps, batch_size)
    save_file(made.state_dict(), out, metadata={"config": json.dumps(made.config)})
    console.print(f"{steps} steps in {time.perf_counter() - began:.0f} s: loss {loss:.4f}; in {out}")


@torch.no_grad()
def model_steps(model: Learned, episodes: list[Episode]) -> list[Tensor]:
    """States at every step of the model, `(T, N, D)`: each episode once for every frame of the first block."""
    whole = [torch.cat([model.encode(part) for part in one.frames.split(CHUNK)]) for one in episodes]
    return [states[first :: model.block] for states in whole for first in range(min(model.block, len(states)))]


def load_critic(path: str) -> StepsToGo:
    """The critic in a file.

    Raises:
        UserError: No such file, or none that `agent critic` made.
    """
    if not Path(path).is_file():
        raise UserError(f"no critic at {path}: `agent critic` makes one")
    try:
        with safe_open(path, "pt") as file:
            config = parse_json((file.metadata() or {}).get("config", ""), path)
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    sizes = ("width", "tokens", "hidden")
    known = isinstance(config, dict) and config.keys() == {*sizes, "discount"}
    if not known or not all(isinstance(config[key], int) and 0 < config[key] < WIDEST for key in sizes):
        raise UserError(f"{path} is no critic of `agent critic`")
    made = StepsToGo(config["width"], config["tokens"], float(config["discount"]), config["hidden"])
    fill(made, weights, path)
    return made.eval().requires_grad_(False)
