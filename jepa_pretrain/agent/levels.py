"""A trained H-JEPA as planners want it: a world model of every level, and the maps between them.

The lowest level acts in the environment, so its actions are the environment's, those of a step joined. The actions of
the levels above are codes, of which only those that recordings give are known to mean anything: their spread bounds the
search. What a step of a level amounts to, `pace`, is read off the same recordings.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.planners.hierarchical import Upper
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.recorded import Recorded
from jepa_pretrain.agent.world_model import ActionSpace, unroll
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.hierarchy import Hierarchy, Moments
from jepa_pretrain.models.latent import Latent

NEAR = 0.25  # share of a step's distance within which a goal counts as reached
BANK = 1024  # recorded states that sub-goals are looked up among


class LevelModel(nn.Module):
    """`agent.world_model.WorldModel` of one level, without gradients of its own.

    Args:
        hierarchy: trained; it is frozen in place.
        number: the level, from 1.
        action: its actions, as wide as its predictor takes them.

    Raises:
        UserError: no such level, or one that takes no actions, codes at the lowest level, or others than these.
    """

    def __init__(self, hierarchy: Hierarchy, number: int, action: ActionSpace) -> None:
        super().__init__()
        if not 1 <= number <= len(hierarchy.levels):
            raise UserError(f"this hierarchy has levels 1 to {len(hierarchy.levels)}, not {number}")
        level = hierarchy.levels[number - 1]
        if not level.actions or action.width != level.actions:
            raise UserError(f"level {number} takes actions of width {level.actions}, found {action.width}")
        if number == 1 and level.macro is not None:
            raise UserError("the lowest level acts: it has to take actions as they are, and not codes of them")
        self.hierarchy = hierarchy.eval().requires_grad_(False)
        self.number, self.action, self.image_size = number, action, hierarchy.image_size
        self.frames = hierarchy.glances
        self.width, self.grid_tokens = level.width, level.grid[0] * level.grid[1]
        self.block = hierarchy.tubelet  # environment steps per step of this level
        for below in hierarchy.levels[:number]:
            self.block *= below.stride

    def train(self, mode: bool = True) -> "LevelModel":
        """Stays in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Observations `(B, 3 * frames, H, W)` uint8 -> states `(B, N, D)`; a tubelet is as if it had stood still."""
        clip = frames.unsqueeze(2).expand(-1, -1, self.hierarchy.tubelet, -1, -1)
        return self.hierarchy.at(self.number).sequence(clip)[:, 0]

    def lift(self, below: Tensor) -> Tensor:
        """States of the level below, as this one sees each of them: `(B, L, Nb, Db)` -> `(B, L, N, D)`.

        A state that reads several moments below finds the earlier ones in the sequence, whose first one is repeated.
        """
        encoder, length = self.hierarchy.levels[self.number - 1].encoder, below.shape[1]
        if encoder is None:
            return below
        ago = torch.arange(encoder.window - 1, -1, -1, device=below.device)
        index = (torch.arange(length, device=below.device)[:, None] - ago).clamp(min=0)  # (L, window)
        return encoder(below[:, index])

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, N, D)`, `(B, A)`, `(B, Z)` -> the next state `(B, N, D)`."""
        return self.rollout(state, action[:, None], None if z is None else z[:, None])[:, 0]

    def rollout(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, N, D)`, `(B, L, A)`, `(B, L, Z)` -> `(B, L, N, D)`."""
        return self.hierarchy.levels[self.number - 1].predictor.rollout(state, plan, z)


class ChanceLevelModel(LevelModel):
    """A level with a latent variable: `agent.uncertainty.Stochastic`. Its futures are made of single steps.

    Args:
        hierarchy: trained; it is frozen in place.
        number: the level, from 1.
        action: its actions, as wide as its predictor takes them.
    """

    def __init__(self, hierarchy: Hierarchy, number: int, action: ActionSpace) -> None:
        super().__init__(hierarchy, number, action)
        self.chances = self._latent.width

    @property
    def _latent(self) -> Latent:
        return self.hierarchy.levels[self.number - 1].latent

    def latents(self, state: Tensor, chance: Tensor) -> Tensor:
        """`(B, N, D)`, `(B, Z)` uniform in (0, 1) -> z `(B, Z)`, from the prior of the state."""
        return self._latent.draw(state, chance)

    def rollout(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, N, D)`, `(B, L, A)`, `(B, L, Z)` -> `(B, L, N, D)`; the likeliest z without."""
        if z is not None:
            return super().rollout(state, plan, z)
        if plan.shape[1] > 1:
            return unroll(self, state, plan)
        middle = state.new_full((len(state), self.chances), 0.5)
        return super().rollout(state, plan, self.latents(state, middle)[:, None])


class Levels(NamedTuple):
    """What `Agent` and `Hierarchical` need of a hierarchy."""

    model: LevelModel  # the lowest level: the agent's world model
    uppers: tuple[Upper, ...]  # those above, lowest first


def model_of(hierarchy: Hierarchy, number: int, action: ActionSpace) -> LevelModel:
    """The world model of one level; arguments as in `LevelModel`."""
    if not 1 <= number <= len(hierarchy.levels) or hierarchy.levels[number - 1].latent is None:
        return LevelModel(hierarchy, number, action)
    return ChanceLevelModel(hierarchy, number, action)


def levels(
    hierarchy: Hierarchy,
    action: ActionSpace,
    recorded: list[Moments],
    planners: list[Planner],
    horizon: int = 4,
    u: Mapping[str, float] | None = None,
    reach: float = 2.0,
) -> Levels:
    """A hierarchy as levels of a search.

    Args:
        hierarchy: trained; it is frozen in place.
        action: of the lowest level, those of one of its steps joined.
        recorded: `hierarchy.moments` of recorded clips and their actions.
        planners: of the upper levels, lowest first.
        horizon: own steps that upper levels look ahead at most.
        u: weights of their intrinsic terms; the goal, and a little for staying near recorded macro-actions, without.
        reach: deviations of the recorded macro-actions within which to search.

    Raises:
        UserError: another number of planners than of upper levels, or of recordings than of levels.
    """
    if len(planners) + 1 != len(hierarchy.levels) or len(recorded) != len(hierarchy.levels):
        raise UserError(
            f"{len(hierarchy.levels)} levels need a recording each and a planner for each upper one, "
            f"found {len(recorded)} recordings and {len(planners)} planners"
        )
    uppers = []
    for number, planner in enumerate(planners, start=2):
        below, own = recorded[number - 2], recorded[number - 1]
        if own.actions is None:
            raise UserError(f"level {number} was recorded without actions: give them to `hierarchy.moments`")
        macros, pace = Recorded.of(own.actions), pace_of(own.states)
        model = model_of(hierarchy, number, macros.space(reach))
        weights = u or {"goal": 1.0, "recorded": 0.01 * pace}
        bank = below.states.detach().flatten(0, 1)[:BANK]
        cost = Cost(model.action, recorded=macros)
        uppers.append(Upper(model, cost, planner, model.lift, horizon, weights, NEAR * pace, pace, bank=bank))
    return Levels(model_of(hierarchy, 1, action), tuple(uppers))


def pace_of(states: Tensor) -> float:
    """How far one step leads, as the goal term measures it: `(B, L, N, D)` -> the mean."""
    return max((states[:, 1:] - states[:, :-1]).detach().square().mean().item(), torch.finfo(states.dtype).tiny)
