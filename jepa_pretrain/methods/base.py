"""What every way of training shares: optimisation along schedules, logging, and what a checkpoint says of itself."""

import math
import subprocess
from abc import abstractmethod
from importlib.metadata import version
from pathlib import Path

import lightning
import torch
from torch import Tensor

from jepa_pretrain import distributed
from jepa_pretrain.contracts import Batch, Encoder, Output, UserError
from jepa_pretrain.methods.sharding import plain_class, shard
from jepa_pretrain.models.vit import plain_attention_is_quicker, use_plain_attention
from jepa_pretrain.ops import pool
from jepa_pretrain.optim import OptimizerRecipe
from jepa_pretrain.seeds import seed_of


class Method(lightning.LightningModule):
    """A way of training. A method writes `step`, names the encoder it hands over, and may follow it with a copy.

    Args:
        optimizer: the optimiser, with its schedules.
        compile: compile the modules with `torch.compile` before training.
    """

    def __init__(self, optimizer: OptimizerRecipe, compile: bool = False) -> None:
        super().__init__()
        self.optimizer, self.compile_modules = optimizer, compile
        self._seed: int | None = None

    @abstractmethod
    def step(self, batch: Batch) -> Output:
        """One forward pass of the algorithm on a batch."""

    @property
    @abstractmethod
    def export_name(self) -> str:
        """Dotted name of the submodule that is the product of the training, e.g. `encoder`."""

    def follow(self, progress: float) -> None:
        """Called once after every optimiser step; methods with a target network update it here."""

    @property
    def exported(self) -> Encoder:
        """The encoder that is handed over."""
        return self.get_submodule(self.export_name)

    @property
    def grid(self):
        """Token grid of the encoder, which the data side needs to draw masks."""
        return self.exported.grid

    @property
    def progress(self) -> float:
        """Share of the optimiser steps already taken, in [0, 1]."""
        return min(self.global_step / self.total_steps(), 1.0)

    def total_steps(self) -> int:
        """Optimiser steps of the whole run, which is where schedules end."""
        steps = self.trainer.max_steps if self.trainer.max_steps > 0 else self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise UserError("schedules need an end: set trainer.max_steps or trainer.max_epochs")
        return int(steps)

    def configure_model(self) -> None:
        """With `--trainer.strategy fsdp2`, leave each rank its share of the weights."""
        if self.device_mesh is not None:
            shard(self, self.device_mesh)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer.build(self)

    def on_fit_start(self) -> None:
        if self._seed is None:  # else it is the checkpoint's
            self._seed = torch.initial_seed() % 2**63
        if self.device.type == "cpu" and "bf16" in str(self.trainer.precision) and plain_attention_is_quicker():
            use_plain_attention(self)
        if self.compile_modules:
            for module in self.children():
                if any(True for _ in module.parameters()):
                    module.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        self._seed_step()
        self.optimizer.move(self.optimizers().optimizer, self.progress)
        output = self.step(batch)
        self.log_dict(averages({"loss": output.loss.detach(), **output.terms}))
        self.log("train/lr", self.optimizer.lr(self.progress))
        watched = {"features": distributed.gather(output.features), "label": distributed.gather(batch.label)}
        return {"loss": output.loss, **watched}  # watchers see the joined batch, the same on every rank

    def _seed_step(self) -> None:
        """Make what a step draws (dropped paths, random directions) a function of seed, rank and step alone.

        So a run that is continued draws what it would have drawn, and there is no random state to keep.
        """
        torch.manual_seed(seed_of(self._seed, self.global_rank, self.trainer.fit_loop.total_batch_idx))

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if any(p.grad is not None for p in self.parameters()):  # the guard leaves none where it skips a step
            self.follow(self.progress)

    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"features": pool(self.exported(batch.views[0])).float()}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._seed = checkpoint["seed"]

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["seed"] = self._seed
        checkpoint["export"] = {
            "prefix": self.export_name + ".",
            "config": {"class": plain_class(self.exported).__name__, "args": self.exported.config},
            "provenance": self.provenance(),
        }

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False):
        """As torch's, with one line about a checkpoint of another architecture."""
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
            raise UserError(
                f"the checkpoint is of another method or architecture than this recipe: {first[:160]}"
            ) from error

    def provenance(self) -> dict:
        """Where these weights come from: method, step, code, data."""
        data = self.trainer.datamodule.provenance() if self.trainer.datamodule else {}
        found = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        metrics = {k: round(v, 6) for k, v in found.items() if math.isfinite(v)}  # JSON knows no others
        return {
            "method": type(self).__name__,
            "run": Path(self.trainer.default_root_dir).name,
            "step": self.global_step,
            "steps": self.total_steps(),
            "git": git_revision(),
            "data": data,
            "metrics": metrics,
            "versions": {
                name: version(name) for name in ("jepa-pretrain", "torch", "torchvision", "timm", "lightning")
            },
        }


def averages(scalars: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars as they are logged: the mean over ranks, which every rank learns in one exchange."""
    joined = distributed.mean(torch.stack([value.float() for value in scalars.values()]))
    return {f"train/{name}": value for name, value in zip(scalars, joined.unbind(), strict=True)}


def git_revision() -> str:
    """Revision of the checkout this code runs from, with a `+` where it was changed; `unknown` outside of one."""
    where = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], cwd=where, capture_output=True, text=True
        )
    except FileNotFoundError:  # no git on this machine
        return "unknown"
    return done.stdout.strip() or "unknown"
