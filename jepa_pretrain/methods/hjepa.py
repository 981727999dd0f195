"""H-JEPA: JEPAs on top of each other, each predicting its own states in time (LeCun 2022, section 4.6).

At every level, with its states s, actions a and latent variables z ~ q(z | s_t, s_{t+1}):

    predicted_t = predictor(s_1 ... s_t, a_1 ... a_t, z_1 ... z_t)
    loss = |predicted_t - s_{t+1}|^2                      teacher-forced, mean over t
         + |rollout_h(s_1) - s_{1+h}|^2                   rolled out, mean over h = 2 ... H; with `alone` from every
                                                          moment s_t by itself, h = 1 ... H
         + weight * objective(s)                          against collapse
         + latent weight * cost of z + macro weight * macro_objective(a)

and the sum over the levels is trained end to end (Zhang et al. 2026, arXiv 2610.06805), or one level after the other.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import Batch, Output, UserError
from jepa_pretrain.ema import EMA
from jepa_pretrain.methods.base import Method
from jepa_pretrain.models.hierarchy import Hierarchy, Moments
from jepa_pretrain.models.level import Level
from jepa_pretrain.optim import OptimizerRecipe
from jepa_pretrain.schedules import Schedule


@dataclass(frozen=True)
class Weights:
    """What the terms beside the prediction weigh.

    Args:
        objective: the anti-collapse objective; a schedule may lower it, so that what cannot be predicted stays in the
            states until a latent variable explains it, and what is of no use to anything may go then.
        macro: the objective on the macro-actions.
        latent: share of the latent variables' own weights, which are part of their energy, in the course of the run;
            with a slow start, such as `Ramp(1.0, full=0.5)`, z is used before it costs (a discrete z was given up
            without one in some runs). None for all of it from the start.
    """

    objective: float | Schedule = 0.18
    macro: float = 0.0
    latent: Schedule | None = None


class HJEPA(Method):
    """Trains a hierarchy to predict its own states.

    Args:
        hierarchy: the levels; it is what is exported.
        objective: anti-collapse objective on the states of each moment, at every level that makes its own, such as
            `SIGReg` or `VarianceCovarianceLoss`; may be None with `momentum`.
        optimizer: the optimiser, with its schedules.
        weights: what the terms weigh.
        macro_objective: objective on the macro-actions; with `SIGReg` they become standard normal, which a planner can
            draw from.
        rollout: steps H that the prediction is rolled out for; 1 for teacher forcing alone.
        alone: roll out from every moment whose window is whole instead of from the first, each time knowing of the clip
            that one state alone: it has to hold what going on needs, such as velocities, which the predictor else reads
            off earlier states.
        momentum: momentum of a copy of the hierarchy that gives the targets (EMA and stop-gradient); None for targets
            with gradient, as published. The copy is what is exported then.
        level_by_level: train one level in each n-th of the run, on levels below that are finished, instead of all at
            once. With several devices the strategy has to be `ddp_find_unused_parameters_true`.
        compile: compile the modules with `torch.compile`.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        objective: nn.Module | None,
        optimizer: OptimizerRecipe,
        weights: Weights = Weights(),
        macro_objective: nn.Module | None = None,
        rollout: int = 1,
        alone: bool = False,
        momentum: Schedule | None = None,
        level_by_level: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, compile)
        if hierarchy.reads == 0:
            raise UserError("model.hierarchy.reads: training hands over the states of a level, 1 or more")
        if objective is None and momentum is None:
            raise UserError("without an objective and without momentum the states collapse: give one of them")
        self.hierarchy, self.objective, self.macro_objective = hierarchy, objective, macro_objective
        self.weights = weights
        self.rollout, self.alone, self.level_by_level = rollout, alone, level_by_level
        self.momentum, self.target = momentum, EMA(hierarchy) if momentum else None

    @property
    def export_name(self) -> str:
        return "target.module" if self.momentum else "hierarchy"

    def step(self, batch: Batch) -> Output:
        clip, stage = batch.views[0], self._stage()
        levels = max(stage or len(self.hierarchy.levels), self.hierarchy.reads)
        moments = self.hierarchy.moments(clip, batch.actions, levels, detach=stage is not None)
        targets = [own.states for own in moments]
        if self.target is not None:
            with torch.no_grad():
                targets = [own.states for own in self.target.module.moments(clip, batch.actions, levels)]
        loss, terms = torch.zeros((), device=clip.device), {}
        for number, (own, target) in enumerate(zip(moments, targets, strict=True), start=1):
            if stage in (None, number):
                own_loss, own_terms = self._level(self.hierarchy.levels[number - 1], own, target)
                loss = loss + own_loss
                terms |= {f"level{number}/{name}": term.detach() for name, term in own_terms.items()}
        return Output(loss, terms, targets[self.hierarchy.reads - 1].detach().float().mean(dim=(1, 2)))

    def _stage(self) -> int | None:
        """The one level that is being trained, from 1; None for all."""
        if not self.level_by_level:
            return None
        return min(int(self.progress * len(self.hierarchy.levels)) + 1, len(self.hierarchy.levels))

    def _objective_weight(self) -> float:
        """What the anti-collapse objective weighs now."""
        weight = self.weights.objective
        return weight(self.progress) if isinstance(weight, Schedule) else weight

    def _latent_share(self) -> float:
        """The share of z's penalty that counts now."""
        return 1.0 if self.weights.latent is None else self.weights.latent(self.progress)

    def _level(self, level: Level, own: Moments, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one level, and its terms by name."""
        terms = self._prediction(level, own, target)
        loss = terms["prediction"] + terms.get("rollout", 0.0)
        if level.latent is not None:
            loss = loss + self._latent_share() * level.latent.weight * terms["latent"]
        if self.objective is not None and level.encoder is not None:  # shared states are held by the level below
            terms["regularizer"] = self.objective(list(own.states.transpose(0, 1).flatten(1, 2)))[0]  # L x (B N, D)
            loss = loss + self._objective_weight() * terms["regularizer"]
        if self.macro_objective is not None and level.macro is not None:
            terms["macro"] = self.macro_objective(list(own.actions.transpose(0, 1)))[0]  # L - 1 x (B, A)
            loss = loss + self.weights.macro * terms["macro"]
        spread = target.detach().float()
        terms["std"] = spread.flatten(0, 2).std(dim=0).mean()
        return loss, terms

    def _prediction(self, level: Level, own: Moments, target: Tensor) -> dict[str, Tensor]:
        """Teacher-forced and rolled-out errors, and the cost of the latent variables."""
        before, after = own.states[:, :-1], target[:, 1:]  # (B, L - 1, N, D)
        z, terms = None, {}
        if level.latent is not None:
            z, cost = level.latent(before, after)  # (B, L - 1, Z), (B, L - 1)
            terms["latent"] = cost.mean()
        terms["prediction"] = F.mse_loss(level.predictor(before, own.actions, z).float(), after.float())
        horizon = min(self.rollout, after.shape[1])
        if self.alone or horizon > 1:
            given = [None if x is None else x.unfold(1, horizon, 1).mT for x in (own.actions, z)]  # (B, S, H, ...)
            wanted = after.unfold(1, horizon, 1).movedim(-1, 2)  # (B, S, H, N, D), S moments to begin at
            terms["rollout"] = self._rolled(level, before[:, : wanted.shape[1]], given, wanted)
        return terms

    def _rolled(self, level: Level, begin: Tensor, given: list[Tensor | None], wanted: Tensor) -> Tensor:
        """Error of rollouts that each know one state; the first step counts where teacher forcing is told more."""
        starts = slice(min(level.whole, begin.shape[1] - 1), None) if self.alone else slice(1)
        begin, wanted, *given = (None if x is None else x[:, starts].flatten(0, 1) for x in (begin, wanted, *given))
        rolled = level.predictor.rollout(begin, *given, horizon=wanted.shape[1])
        first = 0 if self.alone else 1
        return F.mse_loss(rolled[:, first:].float(), wanted[:, first:].float())

    def follow(self, progress: float) -> None:
        if self.target is not None:
            self.target.update(self.hierarchy, self.momentum(progress))
