"""How actions were changed, and what recordings would be with the changed ones."""

import torch
from torch import Tensor

from jepa_pretrain.agent.actor import idle
from jepa_pretrain.agent.surprise import Transitions, error_of
from jepa_pretrain.agent.world_model import WorldModel

BEGUN = (1.0, -1.0, 2.0, -2.0, 0.5)  # motors that the search for changed ones begins with, times one


def motors(model: WorldModel, seen: Transitions, scale: float, steps: int = 60, rate: float = 0.05) -> Tensor:
    """The linear map M for which `Pred(s, M a)` fits best what happened, by Adam from several maps; M = 1 is no change.

    Args:
        model: predicts; its weights stay.
        seen: what happened.
        scale: a usual error; far above it, more counts hardly.
        steps: of Adam.
        rate: learning rate.

    Returns:
        `(a, a)`, of one action of the environment as a column.
    """
    width = model.action.width // model.block
    several = torch.tensor(BEGUN)[:, None, None] * torch.eye(width)  # (S, a, a)
    several.requires_grad_()
    optimiser = torch.optim.Adam([several], lr=rate)
    blocks = seen.action.unflatten(1, (model.block, width))
    state, after = (one.repeat(len(BEGUN), 1, 1) for one in (seen.state, seen.after))

    def off() -> Tensor:
        action = torch.einsum("mka,sba->smkb", blocks, several).flatten(0, 1).flatten(1)
        error = error_of(model.rollout(state, action[:, None])[:, 0], after)
        return (1 + error / scale).log().unflatten(0, (len(BEGUN), -1)).mean(1)  # (S,)

    for _ in range(steps):
        loss = off().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return several[off().argmin()].clone()


def undone(found: Tensor) -> Tensor | None:
    """What actions have to be multiplied by to do what they did before, `(a, a)`; None where nothing would do.

    Args:
        found: `(a, a)`, what `motors` gave.
    """
    return torch.linalg.inv(found) if float(torch.linalg.svdvals(found).min()) >= 0.1 else None


def translated(recordings: Transitions, found: Tensor, model: WorldModel) -> Transitions:
    """Recordings with the actions that would have done the same with changed motors; none beyond what can be done.

    Args:
        recordings: of the old world.
        found: `(a, a)`, what `motors` gave; where it cannot be undone, nothing is left.
        model: its actions' bounds.
    """
    back = undone(found)
    if back is None:
        return Transitions(*(one[:0] for one in recordings))
    action = (recordings.action.unflatten(1, (model.block, len(found))) @ back.T).flatten(1)
    middle = idle(model.action)
    can = ((action - middle).abs() <= 1.05 * (model.action.high - middle)).all(1)
    return Transitions(recordings.state[can], action[can], recordings.after[can])
