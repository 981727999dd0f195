"""`jepa-pretrain agent guard`: a region that an agent's plans keep out of, read off its states.

Where the agent is, the recordings tell; a ridge regression learns to read it from states. The regression is fitted on
half of the episodes, and how far it is off on the others is the least margin that makes sense.
"""

from dataclasses import replace

import torch
from rich.console import Console
from torch import Tensor

from jepa_pretrain.acting.load import load_mind
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.folder import save_agent
from jepa_pretrain.agent.guardrails import KeepOut
from jepa_pretrain.agent.readout import Reader, fit
from jepa_pretrain.agent.sight import encoded
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes


def guard(
    agent: str,
    data: str,
    out: str,
    x: float,
    y: float,
    radius: float,
    margin: float | None = None,
    weight: float = 100.0,
    hard: bool = True,
    name: str = "disc",
    frames: int = 10_000,
) -> None:
    """Give an agent a disc to keep out of, and write it with this guardrail beside those it has.

    Args:
        agent: Folder of an agent, or of a world model.
        data: Trajectory shards of `agent collect`, whose proprioception begins with the place: the readout is fitted.
        out: Folder for the guarded agent.
        x: Of the centre, in the units of the recordings.
        y: Of the centre.
        radius: Of the disc.
        margin: Added to the radius; by default what 99 % of the readings are not off by. Plans see the ends of blocks
            only, so that half of the way of a block should be added.
        weight: Cost per radius and margin of violation.
        hard: Never choose a plan that violates it while another does not.
        name: For messages and pages; an earlier guardrail of this name is replaced.
        frames: Of the recordings that are read, at most.
    """
    if not radius > 0 or (margin is not None and margin < 0):
        raise UserError(f"a disc needs a radius above 0 and a margin that is not negative, found {radius} and {margin}")
    mind, console = load_mind(agent), Console(highlight=False, soft_wrap=True)
    reader, off = place_reader(mind, read_episodes(data, frames, console))
    typical, most = float(off.mean()), float(off.quantile(0.99))
    wide = radius + (most if margin is None else margin)
    rail = keep_out(reader, (x, y), wide, name, weight, hard)
    others = tuple(one for one in mind.task.guardrails if one.name != name)
    folder = save_agent(replace(mind, task=replace(mind.task, guardrails=(*others, rail))), out)
    console.print(f"places are read {typical:.4g} off on average, 99 % within {most:.4g}")
    console.print(f"plans keep {wide:.4g} away from ({x:g}, {y:g}); in {folder}")


@torch.no_grad()
def place_reader(mind: Agent, episodes: list[Episode]) -> tuple[Reader, Tensor]:
    """Reads the place from states, and how far it was off on episodes that it did not learn from, `(S,)`.

    Args:
        mind: whose states.
        episodes: with the place as the first two numbers of proprioception.

    Raises:
        UserError: no such numbers, or a single episode.
    """
    if len(episodes) < 2 or episodes[0].proprio.shape[1] < 2:
        found = f"{len(episodes)} episodes with {episodes[0].proprio.shape[1]} numbers each"
        raise UserError(f"a guardrail's readout needs two episodes that tell places, found {found}")
    parts = []
    for some in (episodes[0::2], episodes[1::2]):  # behaviours lie in shards of their own
        parts.append((encoded(mind.model, some).flatten(1), torch.cat([one.proprio[:, :2] for one in some])))
    (states, truth), (held, told) = parts
    reader = fit(states, truth)
    return reader, (reader(held) - told).norm(dim=1)


def keep_out(
    reader: Reader, centre: tuple[float, float], radius: float, name: str = "disc", weight: float = 100.0,
    hard: bool = True,
) -> KeepOut:  # fmt: skip
    """The guardrail of a disc, in units of its radius, so that a weight means the same in every world.

    Args:
        reader: reads the place.
        centre: of the disc.
        radius: with its margin.
        name: for messages and pages.
        weight: cost per radius of violation.
        hard: never choose a plan that violates it while another does not.
    """
    bias = reader.bias - reader.mean @ reader.weight
    middle = torch.tensor(centre, dtype=bias.dtype)
    return KeepOut(reader.weight.T.contiguous() / radius, bias / radius, middle / radius, 1.0, name, weight, hard)
