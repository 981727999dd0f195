"""Levels above a world model, trained on the states that it makes of recorded frames, kept in memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

from jepa_pretrain.acting.train import fit
from jepa_pretrain.agent.sight import encoded
from jepa_pretrain.contracts import Batch, Episode, UserError
from jepa_pretrain.data.windows import Windows
from jepa_pretrain.methods.hjepa import HJEPA, Weights
from jepa_pretrain.models.abstraction import MacroActions, StateEncoder
from jepa_pretrain.models.climbing import Known, joined, lowest
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.latent import Discrete
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.world import World
from jepa_pretrain.objectives.sigreg import SIGReg
from jepa_pretrain.objectives.slow import Slow
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant, Ramp, WarmupCosine

CLIP = 8  # steps of the world model in a stretch, if a step of the highest level is not longer
HIDDEN = 128  # width of what encodes and predicts; plans ask it some thousand times
ROLLOUT = 4  # own steps that predictions are rolled out for, where a stretch has as many


@dataclass(frozen=True)
class Shape:
    """What the levels look like.

    Args:
        strides: Of the upper levels, lowest first: steps of the level below in one of their own.
        width: Of their states; 0 for those of the world model as they are, so that all share one latent space (HWM).
        macro: Width of their actions.
        values: Of the discrete latent variable of the lowest level; 0 for none.
    """

    strides: tuple[int, ...] = (4, 2)
    width: int = 32
    macro: int = 8
    values: int = 0


@dataclass(frozen=True)
class Run:
    """How they are trained.

    Args:
        steps: Of the optimiser.
        batch_size: Stretches of behaviour per step.
        lr: Peak learning rate.
        seed: Of the order.
    """

    steps: int = 800
    batch_size: int = 512
    lr: float = 3e-3
    seed: int = 0


def climb(world: World, episodes: list[Episode], shape: Shape, run: Run, console: Console) -> tuple[Hierarchy, str]:
    """Train what stands above a world model, which stays as it is.

    Args:
        world: The world model.
        episodes: Recorded behaviour.
        shape: Of the levels.
        run: How they are trained.
        console: For the progress bar.

    Returns:
        The whole hierarchy, and what the training came to.
    """
    world.eval()
    uppers = _uppers(world, shape)
    first = _chancy(world, shape.values) if shape.values else None
    trained = [] if first is None else [first]
    told = []
    for levels in (trained, uppers):
        if levels:
            told.append(_train(world, levels, episodes, run, console))
    bottom = lowest(world) if first is None else lowest(world, first.predictor, first.latent)
    return joined(world, bottom, uppers), "; ".join(told)


def _uppers(world: World, shape: Shape) -> list[Level]:
    levels, below, actions = [], world.width, world.dynamics.actions
    for stride in shape.strides:
        width = shape.width or below
        levels.append(
            Level(
                ResidualMLP(width, shape.macro, hidden=HIDDEN),
                StateEncoder(below, width, hidden=HIDDEN, batch_norm=True) if shape.width else None,
                stride,
                MacroActions(actions, stride, shape.macro),
            )
        )
        below, actions = width, shape.macro
    return levels


def _chancy(world: World, values: int) -> Level:
    """Dynamics with a latent variable, on states as they are; they go on from those without, if these can.

    What those know of actions need not be learned again, so that z is left with what chance decides. Trained from
    nothing, z told small differences that took long to learn, and not who fell.
    """
    known = world.dynamics
    begun = known.chancy(values) if isinstance(known, ResidualMLP) else None
    predictor = begun or ResidualMLP(world.width, known.actions, values)
    return Level(predictor, latent=Discrete(world.width, values))


def _train(world: World, levels: list[Level], episodes: list[Episode], run: Run, console: Console) -> str:
    """Trains levels on the world model's states, and says how well they predict."""
    longest = math.prod(level.stride for level in levels)
    length = longest * max(CLIP // longest, 1)
    hierarchy = Hierarchy(Known(world.width), levels, length + 1)
    objective = Slow(VarianceCovarianceLoss(16.0, 8.0), 4.0)
    optimizer = AdamW(WarmupCosine(start=run.lr / 10, peak=run.lr, end=run.lr / 100, warmup=0.05), Constant(1e-5))
    weights = Weights(objective=0.1, macro=0.1, latent=Ramp(1.0, full=0.5))
    method = HJEPA(hierarchy, objective, optimizer, weights, SIGReg(64), ROLLOUT)
    fit(method, _Steps(world, episodes, length, run), run.steps, console)
    hierarchy.eval()
    found = {name: float(one) for name, one in method.trainer.callback_metrics.items()}
    return ", ".join(
        f"level {name.split('level')[1].replace('/', ' ')} {value:.4f}"
        for name, value in found.items()
        if name.endswith(("prediction", "std"))
    )


class _Steps:
    """Stretches of states and the actions between them, a step of the world model apart.

    Args:
        world: Makes the states.
        episodes: Recorded behaviour.
        length: Steps of the world model in a stretch.
        run: Batch size and seed.
    """

    def __init__(self, world: World, episodes: list[Episode], length: int, run: Run) -> None:
        states = encoded(world, episodes)[:, 0]  # (S, D)
        self.block = world.block
        self.windows = Windows(episodes, states, self.block, self.block * length, run.batch_size, run.seed)

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.windows:
            yield batch._replace(actions=self._joined(batch.actions))

    def _joined(self, actions: Tensor) -> Tensor:
        """Those of every step side by side, `(B, L block, a)` -> `(B, L + 1, block a)`; the last leads nowhere."""
        steps = actions.unflatten(1, (-1, self.block)).flatten(2)
        return torch.cat([steps, torch.zeros_like(steps[:, :1])], dim=1)


def check(shape: Shape) -> None:
    """Refuse levels that are none."""
    if not (shape.strides or shape.values) or any(one < 2 for one in shape.strides):
        raise UserError(
            f"levels take 2 steps of the level below or more, found {shape.strides}; one level alone needs values"
        )
