"""Runs that go wrong on demand: small methods, and faults that strike at given steps."""

from functools import partial
from typing import ClassVar

import lightning
import torch
from lightning import Trainer
from torch import Tensor, nn

from jepa_pretrain import optim
from jepa_pretrain.callbacks.collapse import Collapse
from jepa_pretrain.callbacks.guard import Guard
from jepa_pretrain.callbacks.probes import OnlineKNN, OnlineProbe
from jepa_pretrain.callbacks.record import CSV
from jepa_pretrain.contracts import Batch
from jepa_pretrain.data.shards import Shards
from jepa_pretrain.data.views import RandomCrop
from jepa_pretrain.masking import MultiBlock
from jepa_pretrain.methods.ijepa import IJEPA
from jepa_pretrain.methods.joint_embedding import JointEmbedding
from jepa_pretrain.models.predictor import MaskedPredictor
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.objectives.vicreg import VICRegLoss
from jepa_pretrain.schedules import Constant

FOREVER = 10**9


class Explode(torch.autograd.Function):
    """Passes numbers on, and turns their gradient infinite."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return torch.full_like(grad, torch.inf)


class Faulty(nn.Module):
    """VICReg's loss, spoilt in the calls from `first` on.

    Args:
        fault: `loss`: the loss is NaN, its gradient is not; `gradient`: infinite, while the loss is finite; `root`: the
            slope of a root at 0 makes it NaN; `jump`: the loss is a hundred times too large.
        first: the first call that is spoilt, from 0; a call is a micro-batch.
        count: how many are.
        rank: the one rank where it happens; on all without it.
    """

    def __init__(self, fault: str, first: int = 0, count: int = 1, rank: int | None = None) -> None:
        super().__init__()
        self.objective, self.fault, self.calls, self.rank = VICRegLoss(), fault, 0, rank
        self.spoilt = range(first, first + count)

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        here = self.rank is None or self.rank == torch.distributed.get_rank()
        now = here and self.calls in self.spoilt
        self.calls += 1
        if now and self.fault == "gradient":
            views = [Explode.apply(z) for z in views]
        loss, terms = self.objective(views)
        if now and self.fault == "loss":
            loss = loss + torch.nan
        if now and self.fault == "root":
            loss = loss + (views[0] * 0).sum().abs().sqrt() * 0
        if now and self.fault == "jump":
            loss = loss * 100
        return loss, terms


class Pixels(lightning.Callback):
    """Puts a NaN into a pixel of each view at one step, and keeps the batches as they were before."""

    kept: ClassVar[list[Batch]] = []

    def __init__(self, step: int, rank: int = 0) -> None:
        self.step, self.rank = step, rank
        Pixels.kept.clear()

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            Pixels.kept.append(batch._replace(views=[view.clone() for view in batch.views]))
            for number, view in enumerate(batch.views):
                batch.views[number] = view.float() / 255
                batch.views[number][0, 0, 0, 0, 0] = torch.nan


def ijepa(optimizer: optim.OptimizerRecipe | None = None) -> IJEPA:
    torch.manual_seed(0)
    encoder = ViT(image_size=32, patch=4, width=16, depth=1, heads=2)
    predictor = partial(MaskedPredictor, width=16, depth=1, heads=2)
    return IJEPA(encoder, predictor, optimizer or adamw(), momentum=Constant(0.9))


def vicreg(objective: nn.Module | None = None, optimizer: optim.OptimizerRecipe | None = None) -> JointEmbedding:
    torch.manual_seed(0)
    encoder = TimmEncoder(name="test_resnet", image_size=32)
    projector = partial(Projector, hidden=(16,), out=16)
    return JointEmbedding(encoder, projector, objective or VICRegLoss(), optimizer or adamw())


def adamw() -> optim.AdamW:
    return optim.AdamW(Constant(1e-3), Constant(0.1))


def shards(folder, views: int = 2, batch_size: int = 8, masker: bool = False) -> Shards:
    crops = [RandomCrop(32, scale=(0.3, 1.0)) for _ in range(views)]
    mask = MultiBlock() if masker else None
    return Shards(f"{folder}/train-*.tar", crops, masker=mask, batch_size=batch_size, workers=0)


def train(method, data: Shards, run, steps: int, *callbacks: lightning.Callback, **options) -> Trainer:
    """Train for some steps, with the watchers of every run unless others take their place."""
    given = {type(one) for one in callbacks}
    watchers = [make() for make in (OnlineProbe, OnlineKNN, Collapse, Guard) if make not in given]
    if data.grid is None:
        data.grid = method.grid
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[*callbacks, *watchers], logger=CSV(run), default_root_dir=run,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
        use_distributed_sampler=False, num_sanity_val_steps=0, **({"devices": 1} | options),
    )  # fmt: skip
    trainer.fit(method, data)
    return trainer
