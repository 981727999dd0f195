"""Supervised training with labels: the comparison that says what labels would have given the same encoder.

loss = cross-entropy(linear(average of the encoder's tokens), label)
"""

import torch.nn.functional as F
from torch import nn

from jepa_pretrain.contracts import Batch, Encoder, Output, UserError
from jepa_pretrain.methods.base import Method
from jepa_pretrain.ops import exact, pool
from jepa_pretrain.optim import OptimizerRecipe

NONE = -1  # the label of a sample without one


class Supervised(Method):
    """Classifies the first view by a linear layer on pooled tokens; the encoder is what is exported.

    Args:
        encoder: any encoder, of pictures or clips.
        classes: number of classes.
        optimizer: the optimiser, with its schedules.
        smoothing: share of the target that is spread over all classes.
        compile: compile the modules with `torch.compile`.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        optimizer: OptimizerRecipe,
        smoothing: float = 0.0,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, compile)
        if classes < 2 or not 0 <= smoothing < 1:
            raise UserError(f"two classes or more, and a smoothing from 0 to below 1: not {classes}, {smoothing}")
        self.encoder, self.classes, self.smoothing = encoder, classes, smoothing
        self.head = nn.Linear(encoder.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def export_name(self) -> str:
        return "encoder"

    def step(self, batch: Batch) -> Output:
        features = pool(self.encoder(batch.views[0]))  # (B, D)
        logits = exact(self.head(features))  # (B, classes)
        if bool((batch.label >= self.classes).any()):
            raise UserError(f"a label is {int(batch.label.max())}, but the recipe says classes: {self.classes}")
        known = (batch.label != NONE).sum().clamp_min(1)  # a batch without labels gives a loss of nought, and no NaN
        loss = (
            F.cross_entropy(logits, batch.label, ignore_index=NONE, label_smoothing=self.smoothing, reduction="sum")
            / known
        )
        right = (logits.argmax(1) == batch.label).sum() / known
        return Output(loss, {"top1": 100 * right}, features.detach())
