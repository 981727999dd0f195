"""I-JEPA: masked prediction in representation space (Assran et al. 2023, https://arxiv.org/abs/2301.08243).

context = encoder(picture, seen tokens)
predicted = predictor(context, positions of the targets)
target = layer_norm(EMA of encoder(whole picture)) at the targets
loss = smooth L1 (predicted, target)
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain import distributed
from jepa_pretrain.contracts import Batch, Encoder, Grid, Output, UserError
from jepa_pretrain.ema import EMA
from jepa_pretrain.methods.base import Method
from jepa_pretrain.models.predictor import MaskedPredictor
from jepa_pretrain.ops import exact, gather_tokens, pool
from jepa_pretrain.optim import OptimizerRecipe
from jepa_pretrain.schedules import Schedule


class IJEPA(Method):
    """Predicts the target encoder's tokens at masked places from the tokens that are seen.

    Args:
        encoder: encoder that can drop tokens; its EMA is what is exported.
        predictor: predictor, given the encoder's width and grid.
        optimizer: the optimiser, with its schedules.
        momentum: momentum of the target encoder over progress.
        regularizer: optional anti-collapse objective on the pooled context features, e.g. `VarianceCovarianceLoss`;
            none in the published recipes.
        regularizer_weight: its weight beside the prediction loss.
        loss: distance of predicted and target tokens; smooth L1 by default, as in the official code (L2 in the paper).
        compile: compile the modules with `torch.compile`.
    """

    def __init__(
        self,
        encoder: Encoder,
        predictor: Callable[[int, Grid], MaskedPredictor],
        optimizer: OptimizerRecipe,
        momentum: Schedule,
        regularizer: nn.Module | None = None,
        regularizer_weight: float = 0.0,
        loss: nn.Module | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, compile)
        self.encoder = encoder
        self.target = EMA(encoder)
        self.predictor = predictor(encoder.width, encoder.grid)
        self.momentum = momentum
        self.regularizer, self.regularizer_weight = regularizer, regularizer_weight
        self.loss = loss or nn.SmoothL1Loss()

    @property
    def export_name(self) -> str:
        return "target.module"

    def step(self, batch: Batch) -> Output:
        clip = batch.views[0]
        if not batch.masks:
            raise UserError("I-JEPA needs masks: give the data a masker, e.g. jepa_pretrain.masking.MultiBlock")
        tokens = exact(self.target(clip))  # (B, N, D)
        target = F.layer_norm(tokens, tokens.shape[-1:])  # no gradient: EMA.forward has none
        losses, regularities = [], []
        for masks in batch.masks:
            context = self.encoder(clip, masks.context)  # (B, K, D)
            predicted = self.predictor(context, masks)  # (B, M, K', D)
            losses.append(self.loss(exact(predicted), gather_tokens(target, masks.targets)))
            regularities.append(self._regularity(context))
        loss = torch.stack(losses).mean()
        terms = {"prediction": loss.detach(), "target_std": distributed.gather(pool(target)).std(dim=0).mean()}
        if self.regularizer is not None:
            regularity = torch.stack(regularities).mean()
            terms["regularizer"] = regularity.detach()
            loss = loss + self.regularizer_weight * regularity
        return Output(loss, terms, pool(tokens))

    def _regularity(self, context: Tensor) -> Tensor:
        if self.regularizer is None:
            return context.new_zeros(())
        return self.regularizer([pool(context)])[0]

    def follow(self, progress: float) -> None:
        self.target.update(self.encoder, self.momentum(progress))
