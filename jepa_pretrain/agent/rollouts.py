"""Episodes out of environments: one per environment at a time, each a function of its own seed alone."""

import numpy as np
import torch

from jepa_pretrain.agent.behaviours import Behaviour
from jepa_pretrain.agent.environments import Environments, Options, Seen
from jepa_pretrain.contracts import Episode


def play(
    environments: Environments,
    behaviour: Behaviour,
    seeds: list[int],
    steps: int,
    options: list[Options] | None = None,
    look: bool = True,
    draws: list[int] | None = None,
) -> list[Episode | str]:
    """Plays one episode in every environment and records it.

    Args:
        environments: Where.
        behaviour: Who acts.
        seeds: One per environment, of its reset and of what is drawn for its actions.
        steps: At most so many.
        options: Reset options of each.
        look: Draw pictures; without, the episodes hold none, and cost a tenth.
        draws: Other seeds for what is drawn for the actions, so that an environment is walked through several times.

    Returns:
        Of every environment its episode, or, where it threw, what it said: such an episode is dropped.
    """
    rngs = [np.random.default_rng([seed, 1]) for seed in draws or seeds]
    seen = environments.reset(seeds, options)
    behaviour.begin()
    moments, pictures = [seen], [_pictures(environments, look)]
    actions = []
    while seen.running.any() and len(actions) < steps:
        actions.append(behaviour.act(seen, rngs))
        seen = environments.step(actions[-1])
        moments.append(seen)
        pictures.append(_pictures(environments, look))
    faults = environments.faults()
    return [fault or _episode(row, moments, pictures, actions) for row, fault in enumerate(faults)]


def _pictures(environments: Environments, look: bool) -> torch.Tensor:
    """What the environments look like, (B, C, H, W), or nothing, (B, 0)."""
    return environments.pictures() if look else torch.zeros(environments.count, 0, dtype=torch.uint8)


def _episode(row: int, moments: list[Seen], pictures: list[torch.Tensor], actions: list[torch.Tensor]) -> Episode:
    """What one environment went through, up to its end."""
    length = sum(bool(one.running[row]) for one in moments[:-1])  # steps that were taken while it ran
    kept = slice(0, length + 1)
    done = torch.stack([one[row] for one in actions[:length]]) if length else torch.zeros(0, 0)
    return Episode(
        torch.stack([one[row] for one in pictures[kept]]),
        done,
        torch.stack([one.proprio[row] for one in moments[kept]]),
        torch.stack([one.state[row] for one in moments[kept]]),
        {"reached": bool(moments[length].reached[row])},
    )
