"""`jepa-pretrain agent train`: a world model from recorded behaviour, in minutes on one core.

The same method as `fit` trains, on recordings that lie in memory. Where the encoder is frozen it runs once over all
frames and only its features are kept.
"""

import logging
import time
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning import Trainer, seed_everything
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from jepa_pretrain.acting.load import bare
from jepa_pretrain.acting.members import siblings
from jepa_pretrain.agent.folder import MEMBERS, save_agent
from jepa_pretrain.agent.sight import joined, looks, observed
from jepa_pretrain.contracts import Batch, Episode, UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.trajectories import read_episodes
from jepa_pretrain.data.windows import Windows
from jepa_pretrain.interop.export import write
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.methods.base import Method, git_revision
from jepa_pretrain.methods.pldm import PLDM
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels, SmallConv
from jepa_pretrain.models.standardise import Standardise
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.world import World
from jepa_pretrain.objectives.changes import Both, Changes
from jepa_pretrain.objectives.sigreg import SIGReg
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant, WarmupCosine

CHUNK = 256  # frames encoded at a time
HEADS = 4  # of a transformer as dynamics


def train(
    data: str,
    out: str,
    encoder: str = "conv",
    frozen: bool = True,
    dynamics: Literal["mlp", "transformer"] = "mlp",
    dynamics_width: int | None = None,
    dynamics_depth: int = 2,
    objective: Literal["vicreg", "changes", "sigreg"] = "vicreg",
    width: int = 64,
    hidden: tuple[int, ...] = (256,),
    standardise: bool = False,
    block: int = 5,
    rollout: int = 4,
    steps: int = 3000,
    batch_size: int = 256,
    lr: float = 1e-3,
    members: int = 1,
    frames: int = 1,
    seed: int = 0,
) -> None:
    """Train a world model on recorded behaviour and write it as a folder of safetensors.

    Args:
        data: Trajectory shards of `agent collect`: a folder, path or pattern.
        out: Folder for the world model.
        encoder: conv - a small convolutional network of fresh weights; pixels - the picture made small; or an exported
            encoder's folder, or timm:NAME.
        frozen: Keep the encoder as it is and train the projector and the dynamics alone; false trains it along.
        dynamics: mlp - next state from state and action; transformer - from all states so far.
        dynamics_width: Of their hidden layers; 256 for mlp, 128 for transformer; more where layouts change.
        dynamics_depth: Number of hidden layers, or of blocks.
        objective: vicreg - variance and covariance, similarity in time and an inverse model (PLDM, eb_jepa); changes -
            the same, and variance and covariance of what changes within a stretch too, for worlds where something else
            stands still for an episode, such as doors; sigreg - prediction and SIGReg alone (LeWM).
        width: Of the state.
        hidden: Widths of the projector's hidden layers; [] for a linear one.
        standardise: Bring a frozen encoder's features to one scale first, so that what is faint counts too.
        block: Environment steps per step of the model.
        rollout: Steps of the model that predictions are rolled out for.
        steps: Training steps.
        batch_size: Stretches of behaviour per step.
        lr: Peak learning rate.
        members: More than one make an ensemble, which knows where it knows little: the others learn dynamics of the
            first one's states. OUT is then an agent's folder, with the distance to the goal as its cost.
        frames: Pictures that make a state, a block apart: 2 where one does not tell how things move.
        seed: Names the initial weights and the order.
    """
    began, console = time.perf_counter(), Console(highlight=False, soft_wrap=True)
    if not 1 <= members <= MEMBERS:
        raise UserError(f"a world model has 1 to {MEMBERS} members, not {members}")
    seed_everything(seed, verbose=False)
    episodes = read_episodes(data, console=console)
    about = episodes[0].about
    acted = about.get("actions")
    if acted is None:
        raise UserError(f"{data} does not say what actions there are: record it with `agent collect`")
    seeing = _encoder(encoder, episodes[0].frames.shape[-1])
    predict = partial(_dynamics, dynamics, width, block * acted["width"], dynamics_width, dynamics_depth)
    low, high = (tuple(acted.get(key, ())) for key in ("low", "high"))
    world = World(seeing, predict(), width, tuple(hidden), block, frozen, low, high, frames, standardise)
    method = _method(world, objective, lr)
    seen = _features(world, episodes, console) if frozen else observed(world, episodes)
    batches = Windows(episodes, seen, block, block * rollout, batch_size, seed)
    fit(method, batches, steps, console)
    others = siblings(world, predict, batches, members - 1, steps, lr, seed)
    provenance = {
        "method": "PLDM", "run": Path(out).name, "step": steps, "steps": steps, "git": git_revision(),
        "data": {"train": data, "frames": len(seen), "digest": open_index(data).digest, "seed": seed},
        "environment": about.get("env", "unknown"), "objective": objective, "encoder": encoder,
        "metrics": {name: round(float(one), 6) for name, one in method.trainer.callback_metrics.items()},
    }  # fmt: skip
    folder = save_agent(bare([world, *others]), out) if others else write(world, out, provenance)
    metrics = provenance["metrics"]
    told = " ".join(f"{name} {metrics['train/' + name]:.4f}" for name in ("loss", "prediction", "still", "std"))
    console.print(f"{steps} steps on {len(seen)} frames in {time.perf_counter() - began:.0f} s: {told}; in {folder}")


def _encoder(name: str, size: int) -> nn.Module:
    """What sees the frames."""
    if name == "conv":
        return SmallConv(size)
    if name == "pixels":
        return Pixels(size)
    found = FrozenEncoder.load(name, size)
    if found.image_size != size:
        raise UserError(f"{name} takes {found.image_size} pixels, the recordings have {size}: record with --size")
    return found.encoder


def _dynamics(kind: str, state: int, actions: int, width: int | None, depth: int) -> nn.Module:
    width = (256 if kind == "mlp" else 128) if width is None else width
    if depth < 1 or width < HEADS or width % HEADS:
        raise UserError(f"dynamics have a layer or more of a multiple of {HEADS} numbers, not {depth} of {width}")
    if kind == "mlp":
        return ResidualMLP(state, actions, hidden=width, depth=depth)
    return TemporalPredictor(state, actions=actions, width=width, depth=depth, heads=HEADS, residual=True)


def _method(world: World, objective: str, lr: float) -> PLDM:
    """The published weights of either recipe."""
    optimizer = AdamW(WarmupCosine(start=lr / 10, peak=lr, end=lr / 100, warmup=0.05), Constant(1e-5))
    if objective == "sigreg":
        return PLDM(world, SIGReg(256), optimizer, weight=0.1, similarity=0.0, inverse=0.0)
    spread = VarianceCovarianceLoss(16.0, 8.0)
    if objective == "changes":
        spread = Both(spread, Changes(spread))
    return PLDM(world, spread, optimizer, similarity=12.0, inverse=1.0)


@torch.no_grad()
def _features(world: World, episodes: list[Episode], console: Console) -> Tensor:
    """The frozen encoder's features of the observations at all frames, `(S, frames * F)`; each frame is seen once."""
    pieces = torch.cat([one.frames for one in episodes]).split(CHUNK)
    show = console.is_terminal
    pieces = track(pieces, "encoding", console=console, disable=not show, transient=True)
    seen = torch.cat([world.features(one) for one in pieces])
    if isinstance(world.standard, Standardise):
        world.standard.fit(seen)
        seen = world.standard(seen)
    return joined(seen, looks([len(one.frames) for one in episodes], world.block, world.frames))


def fit(method: Method, batches: Iterable[Batch], steps: int, console: Console) -> None:
    """Train on batches that lie in memory, without a run's files.

    Args:
        method: What is trained.
        batches: Passed through again and again.
        steps: Of the optimiser.
        console: A progress bar is shown if it is a terminal.
    """
    warnings.filterwarnings("ignore", message=r".*does not have many workers|.*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message=r"You defined a `validation_step`")
    for chatty in ("pytorch.utilities.rank_zero", "fabric.utilities.seed"):  # tips, and what devices there are
        logging.getLogger(f"lightning.{chatty}").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=console.is_terminal, log_every_n_steps=50,
    )  # fmt: skip
    trainer.fit(method, train_dataloaders=batches)
