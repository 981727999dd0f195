"""A small run on the demo pictures, and all that it did: losses, gradients, weights, what was read, what was logged."""

from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from jepa_pretrain.callbacks.collapse import Collapse
from jepa_pretrain.callbacks.probes import OnlineKNN, OnlineProbe
from jepa_pretrain.contracts import Grid, Masker, Masks
from jepa_pretrain.data.shards import Shards
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.views import Augment, RandomCrop
from jepa_pretrain.masking import MultiBlock, Tubes
from jepa_pretrain.methods.ijepa import IJEPA
from jepa_pretrain.methods.joint_embedding import JointEmbedding
from jepa_pretrain.models.predictor import DenseRotaryPredictor, MaskedPredictor
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.models.rotary_vit import RotaryViT
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.objectives.dense import DenseLoss
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss, VICRegLoss
from jepa_pretrain.optim import LARS, AdamW
from jepa_pretrain.schedules import Constant, Linear, WarmupCosine
from jepa_pretrain.strategies import FSDP2, SyncBatchNorm

GLOBAL_BATCH = 32


def method(kind: str) -> IJEPA | JointEmbedding:
    torch.manual_seed(0)
    lr = WarmupCosine(2e-3, 1e-3, 1e-4, 0.3)
    if kind == "vicreg":
        optimizer = LARS(WarmupCosine(0.2, 0.1, 0.01, 0.3), Constant(1e-4))
        return JointEmbedding(
            TimmEncoder("test_resnet", 32), lambda w: Projector(w, (24,), 20), VICRegLoss(), optimizer
        )
    if kind == "vjepa":  # tubes, rotary positions, two depths, the loss on visible tokens: V-JEPA 2.1's options
        return IJEPA(
            RotaryViT(16, 4, 24, 2, 2, frames=4, tubelet=2), lambda w, g: DenseRotaryPredictor(w, g, 24, 1, 2, fuse=24),
            AdamW(lr, Linear(0.04, 0.4)), Linear(0.9, 1.0), VarianceCovarianceLoss(), 0.5, torch.nn.L1Loss(),
            depths=(1, 2), dense=DenseLoss(Constant(0.5)),
        )  # fmt: skip
    regularizer = {"regularizer": VarianceCovarianceLoss(), "regularizer_weight": 0.5} if kind == "regularized" else {}
    return IJEPA(
        ViT(32, 4, 32, 2, 2), lambda w, g: MaskedPredictor(w, g, 16, 1, 2), AdamW(lr, Linear(0.04, 0.4)),
        Linear(0.9, 1.0), **regularizer,
    )  # fmt: skip


class SameMasks(Masker):
    """The same masks for every picture, however many are read together."""

    def __call__(self, batch_size: int, grid: Grid, rng: torch.Generator) -> Masks:
        drawn = MultiBlock()(1, grid, torch.Generator().manual_seed(0))
        return Masks(*(part.expand(batch_size, *part.shape[1:]).clone() for part in drawn))


def shards(folder: str, kind: str, batch_size: int, grid) -> Shards:
    views = [Augment(32), Augment(32, solarize=0.2)] if kind == "vicreg" else [RandomCrop(32, (0.3, 1.0))]
    masker = {"vicreg": None, "same masks": SameMasks()}.get(kind, MultiBlock())
    span = Span()
    if kind == "vjepa":
        views, span = [RandomCrop(16, (0.3, 1.0))], Span(4, stride=2)
        masker = [Tubes(4, (0.15, 0.15)), Tubes(2, (0.4, 0.4))]
    train, val = f"{folder}/train-*.tar", f"{folder}/val-*.tar"
    return Shards(train, views, val, masker=masker, grid=grid, batch_size=batch_size, workers=0, span=span)


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


class Recorder(lightning.Callback):
    """Writes down what every step did."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.logged: list[dict[str, Tensor]] = []
        self.read: list[str] = []
        self.validated: list[str] = []
        self.followed: list[tuple[int, float]] = []

    def setup(self, trainer, module, stage) -> None:
        follow = module.follow

        def counted(progress: float) -> None:
            self.followed.append((trainer.global_step, progress))
            follow(progress)

        module.follow = counted

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        self.gradients.append({n: whole(p.grad) for n, p in module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.read += batch.key
        self.logged.append({k: v.clone() for k, v in trainer.callback_metrics.items() if k.startswith("train/")})

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.validated += batch.key


def fit(
    rank: int, world: int, folder: str, kind: str, strategy: str = "ddp", accumulate: int = 1, steps: int = 3,
    stop: int | None = None, keep: str | None = None, resume: str | None = None,
    clip: float | None = None,
) -> dict:  # fmt: skip
    """Train `steps` steps of one global batch size, however many ranks share it, and tell all about it."""
    module = method(kind).double()  # the trainer's own double precision does not go with FSDP2
    data = shards(folder, kind, GLOBAL_BATCH // world // accumulate, module.grid)
    recorder, watchers = Recorder(), [OnlineProbe(), OnlineKNN(bank=48, k=5), Collapse(every=1, samples=48)]
    trainer = lightning.Trainer(
        accelerator="cpu", devices=world, strategy=_strategy(strategy, world), max_steps=steps,
        accumulate_grad_batches=accumulate, plugins=[SyncBatchNorm()] if world > 1 else [], logger=False,
        callbacks=[*watchers, recorder], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0, gradient_clip_val=clip,
        default_root_dir=str(Path(folder) / "unused"),
    )  # fmt: skip
    if stop:
        trainer.callbacks.append(_StopAt(stop, keep))
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False if resume else None)
    return {
        "split": all(isinstance(p, DTensor) for p in module.parameters()),
        "weights": {name: whole(value) for name, value in module.state_dict().items()},
        "gradients": recorder.gradients, "logged": recorder.logged, "read": recorder.read, "step": trainer.global_step,
        "validated": recorder.validated, "followed": recorder.followed,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "watchers": [watcher.state_dict() for watcher in watchers],
    }  # fmt: skip


def _strategy(name: str, world: int) -> str | FSDP2:
    if world == 1:
        return "auto"
    return FSDP2() if name == "fsdp2" else name


class _StopAt(lightning.Callback):
    """Writes a checkpoint after a step and stops there."""

    def __init__(self, step: int, path: str | None) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path, weights_only=False)
            trainer.should_stop = True
