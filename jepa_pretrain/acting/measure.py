"""`jepa-pretrain agent measure`: how well a world model predicts, before any planning.

Over held-out episodes: the error of rolled-out states against the horizon, beside that of predicting that nothing
moves; the true state, read by ridge regression from encoded states, out of rolled-out ones; and in TwoRoom whether the
model knows that walls stop: it is pushed into one for 25 steps. Probes alone do not tell: a model trained on an
expert's data decodes perfectly and walks through the wall.
"""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.agent import tworoom
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.readout import Reader, fit
from jepa_pretrain.agent.sight import encoded, goal_state
from jepa_pretrain.agent.world_model import WorldModel, imagine
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes, windows
from jepa_pretrain.evals.result import check_out, write

TINY = 1e-12  # variance of a number that never changes
PUSHES, STEPS = 64, 25  # trials against the wall, and environment steps of each
AWAY = 30.0  # pixels that a push keeps from the door


def measure(
    agent: str,
    data: str,
    horizon: int = 10,
    frames: int = 10_000,
    readout: str | None = None,
    out: str | None = None,
) -> None:
    """Measure a world model's predictions on recorded behaviour that it was not trained on.

    Args:
        agent: Folder of the world model, of an ensemble, or of an agent.
        data: Trajectory shards of `agent collect`, recorded with another seed.
        horizon: Steps of the model that are rolled out.
        frames: Of the recordings that are read, at most.
        readout: Trajectory shards that the regression is fitted on, such as those of the training; by default every
            other episode of the data, which are few for numbers that are hard to read.
        out: File, or folder, for the outcome as JSON.
    """
    check_out(out)
    model, console = load_mind(agent).model, Console(highlight=False, soft_wrap=True)
    episodes = read_episodes(data, frames, console)
    fitted, tested = episodes[0::2], episodes[1::2]  # behaviours lie in shards of their own
    if readout is not None:
        fitted, tested = read_episodes(readout, console=console), episodes
    episodes = fitted + tested
    states = encoded(model, episodes)[:, 0]  # (S, D)
    truth = torch.cat([one.proprio for one in episodes])
    half = sum(len(one.frames) for one in fitted)
    reader = fit(states[:half], truth[:half])
    starts = windows([len(one.frames) for one in episodes], horizon * model.block)
    starts = starts[starts >= half]
    if not len(starts):
        raise UserError(f"no episode is {horizon * model.block} steps long: lower --horizon")
    result: dict[str, Any] = {"protocol": "agent-measure", "encoder": agent, "data": data, "windows": len(starts)}
    result["r2"] = 1 - float(_error(reader(states[half:]), truth[half:]) / _error(truth[half:].mean(0), truth[half:]))
    off, varies = (reader(states[half:]) - truth[half:]).square().mean(0), truth[half:].var(0, unbiased=False)
    result["r2_each"] = (1 - off / varies.clamp_min(TINY)).tolist()  # of every number that the body feels
    result["horizon"] = _against_horizon(model, episodes, states, truth, starts, horizon, reader)
    if episodes[0].about.get("env") == tworoom.NAME:
        result["through_wall"] = through_wall(model, reader)
    _show(result, console)
    write(result, out, console)


def _error(guess: Tensor, truth: Tensor) -> Tensor:
    return (guess - truth).square().sum(1).mean()


@torch.no_grad()
def _against_horizon(
    model: WorldModel,
    episodes: list[Episode],
    states: Tensor,
    truth: Tensor,
    starts: Tensor,
    horizon: int,
    reader: Reader,
) -> list[dict[str, float]]:
    """For each step: error of the state and of standing still, over the states' variance; mean distance in truth.

    Of an ensemble also how far its doubt goes with its error: the correlation of their logarithms.
    """
    width = episodes[0].actions.shape[1]
    actions = torch.cat([torch.cat([one.actions, torch.zeros(1, width)]) for one in episodes])
    plan = actions[starts[:, None] + torch.arange(horizon * model.block)].unflatten(1, (horizon, -1)).flatten(2)
    imagined, doubt = imagine(model, states[starts][:, None], plan)
    rolled = imagined[:, :, 0]  # (S, L, D)
    spread, rows = states.var(0).sum(), []
    for step in range(horizon):
        later = starts + (step + 1) * model.block
        rows.append({
            "step": step + 1,
            "error": float(_error(rolled[:, step], states[later]) / spread),
            "still": float(_error(states[starts], states[later]) / spread),
            "decoded": float((reader(rolled[:, step]) - truth[later]).norm(dim=1).mean()),
            "decoded_encoded": float((reader(states[later]) - truth[later]).norm(dim=1).mean()),
            "decoded_still": float((truth[starts] - truth[later]).norm(dim=1).mean()),
        })  # fmt: skip
        if doubt is not None:
            off = (rolled[:, step] - states[later]).square().mean(1)
            rows[-1]["doubt"] = float(torch.corrcoef(torch.stack([doubt[:, step].log(), off.log()]))[0, 1])
    return rows


@torch.no_grad()
def through_wall(model: WorldModel, reader: Reader, seed: int = 0) -> float:
    """Share of pushes into the wall of TwoRoom that the model imagines to end on its other side.

    Args:
        model: The world model.
        reader: Reads the position out of states.
        seed: Names where the pushes begin.
    """
    environments = Environments(tworoom.NAME, PUSHES, load_size(model))
    rng = torch.Generator().manual_seed(seed)
    x = 60 + 30 * torch.rand(PUSHES, generator=rng)
    y = 49 + AWAY + (203 - 49 - AWAY) * torch.rand(PUSHES, generator=rng)  # the fixed door is at 49
    side = torch.rand(PUSHES, generator=rng) < 0.5
    start = torch.stack([torch.where(side, 2 * tworoom.WALL - x, x), y], dim=1)
    environments.reset(list(range(PUSHES)), [{"state": one.numpy(), "target_state": one.numpy()} for one in start])
    state = goal_state(model, environments.pictures())  # at rest
    environments.close()
    push = torch.stack([torch.where(side, -1.0, 1.0), torch.zeros(PUSHES)], dim=1)  # (B, 2)
    plan = push.repeat(1, model.block)[:, None].expand(-1, STEPS // model.block, -1)
    ended = reader(model.rollout(state, plan)[:, -1, 0])[:, 0]
    return float(((ended > tworoom.WALL) != side).float().mean())


def _show(result: dict[str, Any], console: Console) -> None:
    title = f"rollouts of {result['encoder']}, {result['windows']} windows"
    columns = ("step", "error / variance", "standing still", "decoded", "of encoded", "standing still")
    table = Table(*columns, box=None, title=title, title_justify="left")
    for row in result["horizon"]:
        parts = (f"{row[key]:.3f}" for key in ("error", "still"))
        distances = (f"{row[key]:.2f}" for key in ("decoded", "decoded_encoded", "decoded_still"))
        table.add_row(str(row["step"]), *parts, *distances)
    console.print(table)
    if "doubt" in result["horizon"][0]:
        told = ", ".join(f"{row['doubt']:.2f}" for row in result["horizon"])
        console.print(f"correlation of the members' disagreement with the error, by step: {told}")
    each = ", ".join(f"{one:.2f}" for one in result["r2_each"])
    console.print(f"the true state is read from encoded ones with R2 {result['r2']:.4f}; each number with {each}")
    if "through_wall" in result:
        console.print(f"pushed into the wall for {STEPS} steps, {100 * result['through_wall']:.0f} % end behind it")
