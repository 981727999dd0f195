"""Further members of an ensemble: the same states, other dynamics (Lakshminarayanan et al. 2017, arXiv 1612.01474).

What members disagree on is what the recordings leave open, so they begin with other weights and see the recordings in
another order. States are those of the first member, or there would be nothing to compare.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.agent.learning import descend
from jepa_pretrain.data.windows import Windows
from jepa_pretrain.models.world import World

CHUNK = 512  # frames whose states are computed at a time


def siblings(
    world: World, fresh: Callable[[], nn.Module], batches: Windows, count: int, steps: int, lr: float, seed: int
) -> list[World]:
    """Trains dynamics on the states of a finished world model.

    Args:
        world: the first member; it is left as it is.
        fresh: dynamics with new weights.
        batches: the stretches of behaviour that it learned from.
        count: how many to train.
        steps: of each.
        lr: first learning rate.
        seed: names the order in which each sees the recordings.

    Returns:
        Worlds that share the encoder's and the projector's weights with the first.
    """
    world.eval()
    states = _states(world, batches.seen)
    made = []
    for number in range(1, count + 1):
        one = copy.deepcopy(world)
        one.dynamics = fresh()
        generator = torch.Generator().manual_seed(seed + number)
        loss = _rolled_out(one, states, batches)
        descend(one.dynamics, len(batches.starts), loss, generator, steps, batches.batch_size, lr)
        made.append(one)
    return made


@torch.no_grad()
def _states(world: World, seen: Tensor) -> Tensor:
    """Of all frames, or of a frozen encoder's features of them, `(S, 1, D)`."""
    see = world.project if seen.is_floating_point() else world.encode
    return torch.cat([see(one) for one in seen.split(CHUNK)])


def _rolled_out(world: World, states: Tensor, batches: Windows) -> Callable[[Tensor], Tensor]:
    """The prediction loss of `methods.pldm`, on states that are known already."""
    block, length = world.block, batches.steps // world.block

    def loss(chosen: Tensor) -> Tensor:
        starts = batches.starts[chosen][:, None]
        plan = batches.actions[starts + torch.arange(batches.steps)].unflatten(1, (length, block)).flatten(2)
        later = states[starts + block * torch.arange(1, length + 1)]  # (B, L, 1, D)
        return F.mse_loss(world.rollout(states[starts[:, 0]], plan, horizon=length), later)

    return loss
