"""The energy view: F_w(x, y) = min over z of E_w(x, y, z), low where y may follow from x (LeCun 2022, section 4.1).

Any trained JEPA gives one: of a future, by a level of a hierarchy; of what masked regions hold, by I-JEPA.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Encoder, Masks, Predictor
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.level import Level
from jepa_pretrain.ops import gather_tokens


class Landscape(NamedTuple):
    """Energies of one level: of what followed, and of what followed in another clip."""

    true: Tensor  # (B, H), at 1 to H steps
    shuffled: Tensor  # (B, H)


def distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of states: two `(B, ..., D)` -> `(B,)`."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


@torch.no_grad()
def future_energy(level: Level, states: Tensor, future: Tensor, actions: Tensor | None = None) -> Tensor:
    """Energy of a future by its horizon. The prediction is rolled out; at every step z is what explains it best.

    Args:
        level: a trained level, in evaluation mode.
        states: `(B, L0, N, D)`, its states up to now.
        future: `(B, H, N, D)`, the states that are to be judged.
        actions: `(B, L0 - 1 + H, A)`, from the first given state on; None without.

    Returns:
        `(B, H)`: distance of the h-th prediction from the h-th state, and what that step's z costs.
    """
    z = None
    if level.latent is not None and states.shape[1] > 1:
        z = level.latent.amortised(states[:, :-1], states[:, 1:])  # (B, L0 - 1, Z)
    known, energies = states, []
    for step in range(future.shape[1]):
        predicted, z, cost = _explain(level, known, future[:, step], actions, z)
        energies.append(distance(predicted, future[:, step]) + cost)
        known = torch.cat([known, predicted.unsqueeze(1)], dim=1)
    return torch.stack(energies, dim=1)


def _explain(
    level: Level, known: Tensor, target: Tensor, actions: Tensor | None, z: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | float]:
    """The next state as near to the target as the level's z can bring it, all z so far, and the cost of the last."""
    end = known.shape[1]
    plan = None if actions is None else actions[:, :end]
    if level.latent is None:
        return level.predictor.rollout(known, plan, horizon=1)[:, 0], None, 0.0

    def joined(last: Tensor) -> Tensor:
        return last.unsqueeze(1) if z is None else torch.cat([z, last.unsqueeze(1)], dim=1)  # (B, L, Z)

    def far(last: Tensor) -> Tensor:
        return distance(level.predictor.rollout(known, plan, joined(last))[:, 0], target)

    best = level.latent.infer(far, known[:, -1], target)
    cost = level.latent.weight * level.latent.penalty(best, known[:, -1])
    return level.predictor.rollout(known, plan, joined(best))[:, 0], joined(best), cost


@torch.no_grad()
def masked_energy(
    encoder: Encoder, predictor: Predictor, target: nn.Module, clip: Tensor, completed: Tensor, masks: Masks
) -> Tensor:
    """Energy of what the masked regions of a picture or clip hold, by I-JEPA.

    Args:
        encoder: the context encoder.
        predictor: predicts the target encoder's tokens.
        target: the target encoder.
        clip: `(B, C, T, H, W)`, of which the context is seen.
        completed: `(B, C, T, H, W)`, of which the targets are judged.
        masks: contexts and targets.

    Returns:
        `(B,)`.
    """
    tokens = target(completed).float()
    wanted = gather_tokens(torch.nn.functional.layer_norm(tokens, tokens.shape[-1:]), masks.targets)
    return distance(predictor(encoder(clip, masks.context), masks), wanted)


@torch.no_grad()
def landscapes(hierarchy: Hierarchy, clip: Tensor, actions: Tensor | None = None, given: int = 1) -> list[Landscape]:
    """Energies of true futures and of those of the next clip in the batch, for every level.

    Args:
        hierarchy: a trained hierarchy, in evaluation mode.
        clip: `(B, C, T, H, W)`, two clips or more.
        actions: `(B, T, A)`, or None.
        given: moments that are known; the others are the future.
    """
    result, of_states = [], False
    for level, (states, own) in zip(hierarchy.levels, hierarchy.moments(clip, actions), strict=True):
        # what was inferred from the future belongs to it and is shuffled with it; what was done belongs to the past
        of_states = level.reads_states or (of_states and level.reads_actions)
        history, future = states[:, :given], states[:, given:]
        other = own
        if own is not None and of_states:
            other = torch.cat([own[:, : given - 1], own[:, given - 1 :].roll(1, 0)], dim=1)
        true = future_energy(level, history, future, own)
        result.append(Landscape(true, future_energy(level, history, future.roll(1, 0), other)))
    return result


@torch.no_grad()
def between(
    level: Level, states: Tensor, one: Tensor, other: Tensor, points: int = 21, actions: Tensor | None = None
) -> Tensor:
    """Energy along the straight line from one next state to another: at a fork low at both ends and high between.

    Args:
        level: a trained level, in evaluation mode.
        states: `(B, L0, N, D)`, its states up to now.
        one: `(B, N, D)`, a next state.
        other: `(B, N, D)`, another.
        points: places on the line, ends included.
        actions: `(B, L0, A)`, or None.

    Returns:
        `(B, points)`.
    """
    places = torch.linspace(0.0, 1.0, points).tolist()
    line = [future_energy(level, states, torch.lerp(one, other, s).unsqueeze(1), actions) for s in places]
    return torch.cat(line, dim=1)


def auroc(compatible: Tensor, incompatible: Tensor) -> float:
    """Share of pairs in which the compatible energy is the lower one; equal ones count half. 1 is perfect, .5 chance.

    Args:
        compatible: energies, any shape.
        incompatible: energies, any shape.
    """
    values, order = torch.cat([compatible.flatten(), incompatible.flatten()]).double().unique(return_inverse=True)
    counts = [torch.bincount(part, minlength=len(values)).double() for part in order.split(
        [compatible.numel(), incompatible.numel()])]  # fmt: skip
    above = counts[1].sum() - counts[1].cumsum(0)  # incompatible ones above each value
    return float((counts[0] * (above + counts[1] / 2)).sum() / (counts[0].sum() * counts[1].sum()))
