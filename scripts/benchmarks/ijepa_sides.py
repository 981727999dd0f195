"""The official I-JEPA step and ours, over the same pictures and masks.

The official side imports `src` of a clone of facebookresearch/ijepa, which must be on PYTHONPATH; nothing of it is
copied. Left out on that side, all in its favour: DistributedDataParallel, the gradient statistics it logs, and the
GradScaler that it uses with bf16. Pictures come normalised to it, raw to ours (which normalises inside the encoder).
"""

import contextlib
import copy
import logging
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_pretrain.contracts import Batch, Grid, Masks
from jepa_pretrain.masking import MultiBlock
from jepa_pretrain.methods.ijepa import IJEPA
from jepa_pretrain.models.predictor import MaskedPredictor
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant, Cosine, WarmupCosine

MODELS = {  # width, depth, heads: of the names in the official code
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
    "vit_huge": (1280, 32, 16),
}
MOMENTUM = 0.996
LR = {"start": 2e-4, "peak": 1e-3, "end": 1e-6}  # the released configuration's
DECAY = {"start": 0.04, "end": 0.4}
STEPS = 1000  # length of the schedules; no run here comes near its end


class Setting(NamedTuple):
    """What both sides train."""

    model: str
    patch: int
    image: int
    batch: int
    predictor_width: int
    predictor_depth: int
    device: str
    bf16: bool


def draw(setting: Setting, seed: int) -> Batch:
    """A random batch with I-JEPA's masks, a function of the seed alone."""
    rng = torch.Generator().manual_seed(seed)
    side = setting.image // setting.patch
    grid = Grid(1, side, side)
    clip = torch.randint(0, 256, (setting.batch, 3, 1, setting.image, setting.image), generator=rng, dtype=torch.uint8)
    masks = Masks(*(index.to(setting.device) for index in MultiBlock()(setting.batch, grid, rng)))
    return Batch([clip.to(setting.device)], [masks], torch.full((setting.batch,), -1), [])


def mixed(setting: Setting) -> contextlib.AbstractContextManager:
    """bf16 where asked for, else fp32."""
    if not setting.bf16:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(setting.device).type, torch.bfloat16)


class Ours:
    """`jepa_pretrain.methods.ijepa.IJEPA`, stepped without a trainer."""

    def __init__(self, setting: Setting, joint: bool) -> None:
        width, depth, heads = MODELS[setting.model]
        shape = {"width": setting.predictor_width, "depth": setting.predictor_depth, "heads": heads, "joint": joint}
        self.setting = setting
        self.recipe = AdamW(lr=WarmupCosine(**LR, warmup=0.1), weight_decay=Cosine(**DECAY))
        encoder = ViT(setting.image, setting.patch, width, depth, heads)
        self.method = IJEPA(encoder, partial(MaskedPredictor, **shape), self.recipe, Constant(MOMENTUM))
        self.method.to(setting.device).train()
        self.optimiser = self.method.configure_optimizers()

    def loss(self, batch: Batch) -> Tensor:
        with mixed(self.setting):
            return self.method.step(batch).loss

    def step(self, batch: Batch) -> Tensor:
        self.recipe.move(self.optimiser, 0.1)
        self.optimiser.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        self.optimiser.step()
        self.method.follow(0.1)
        return loss.detach()


class Official:
    """The official modules and optimiser, stepped in the order of its `train.py`."""

    def __init__(self, setting: Setting) -> None:
        logging.disable(logging.INFO)  # it prints the whole model
        from src.helper import init_model, init_opt

        self.setting = setting
        self.encoder, self.predictor = init_model(
            torch.device(setting.device),
            setting.patch,
            setting.model,
            setting.image,
            setting.predictor_depth,
            setting.predictor_width,
        )
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.optimiser, _, self.lr, self.decay = init_opt(
            self.encoder,
            self.predictor,
            iterations_per_epoch=STEPS // 10,
            start_lr=LR["start"],
            ref_lr=LR["peak"],
            final_lr=LR["end"],
            warmup=1,
            num_epochs=10,
            wd=DECAY["start"],
            final_wd=DECAY["end"],
            ipe_scale=1.0,
        )
        self.mean = torch.tensor((0.485, 0.456, 0.406), device=setting.device).view(3, 1, 1)
        self.std = torch.tensor((0.229, 0.224, 0.225), device=setting.device).view(3, 1, 1)

    def pictures(self, batch: Batch) -> Tensor:
        """(B, C, 1, H, W) uint8 -> (B, C, H, W) normalised, as its transforms deliver them."""
        return (batch.views[0][:, :, 0].float() / 255.0 - self.mean) / self.std

    def masks(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """As its collator delivers them: a list of (B, K), a list of M times (B, K')."""
        return [batch.masks[0].context], list(batch.masks[0].targets.unbind(1))

    def targets(self, pictures: Tensor, seen: list[Tensor], predicted: list[Tensor]) -> Tensor:
        """(M B, K', D): layer-normed target tokens, block by block."""
        from src.masks.utils import apply_masks
        from src.utils.tensors import repeat_interleave_batch

        with torch.no_grad():
            tokens = self.target(pictures)
            tokens = apply_masks(F.layer_norm(tokens, tokens.shape[-1:]), predicted)
            return repeat_interleave_batch(tokens, len(pictures), repeat=len(seen))

    def loss(self, batch: Batch) -> Tensor:
        pictures, (seen, predicted) = self.pictures(batch), self.masks(batch)
        with mixed(self.setting):
            target = self.targets(pictures, seen, predicted)
            guess = self.predictor(self.encoder(pictures, seen), seen, predicted)
            return F.smooth_l1_loss(guess, target)

    def step(self, batch: Batch) -> Tensor:
        self.lr.step()
        self.decay.step()
        loss = self.loss(batch)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.follow()
        return loss.detach()

    @torch.no_grad()
    def follow(self) -> None:
        for slow, quick in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
            slow.mul_(MOMENTUM).add_(quick, alpha=1.0 - MOMENTUM)
