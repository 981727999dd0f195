"""I-JEPA: masked prediction in representation space (Assran et al. 2023, https://arxiv.org/abs/2301.08243).

context = encoder(picture, seen tokens)
predicted = predictor(context, positions of the targets)
target = layer_norm(EMA of encoder(whole picture)) at the targets
loss = smooth L1 (predicted, target)

On clips, with blocks through all frames and L1, this is V-JEPA (Bardes et al. 2024, https://arxiv.org/abs/2404.08471);
`depths` and `dense` are what V-JEPA 2.1 (https://arxiv.org/abs/2603.14482) adds.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain import distributed
from jepa_pretrain.contracts import Batch, Encoder, Grid, Masks, Output, UserError
from jepa_pretrain.ema import EMA
from jepa_pretrain.methods.base import Method
from jepa_pretrain.methods.sharding import plain_class
from jepa_pretrain.models.predictor import DensePredictor, MaskedPredictor
from jepa_pretrain.objectives.dense import DenseLoss
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
        depths: numbers of the encoder's blocks, from 1, whose outputs are predicted, side by side, from the context's
            outputs there; empty for the last alone. Needs a `ViT`.
        dense: optional loss on the tokens that are seen; needs a `DensePredictor`.
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
        depths: tuple[int, ...] = (),
        dense: DenseLoss | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, compile)
        self.encoder = encoder
        self.target = EMA(encoder)
        self.depths, self.dense = tuple(depths), dense
        self.predictor = predictor(encoder.width * max(len(self.depths), 1), encoder.grid)
        if isinstance(self.predictor, DensePredictor) != (dense is not None):
            raise UserError("a dense loss and a dense predictor go together: give both `dense` and a DensePredictor")
        self.momentum = momentum
        self.regularizer, self.regularizer_weight = regularizer, regularizer_weight
        self.loss = loss or nn.SmoothL1Loss()

    @property
    def export_name(self) -> str:
        return "target.module"

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["export"]["predictor"] = {
            "class": plain_class(self.predictor).__name__, "args": self.predictor.config,
        }  # fmt: skip

    def step(self, batch: Batch) -> Output:
        clip = batch.views[0]
        if not batch.masks:
            raise UserError("I-JEPA needs masks: give the data a masker, e.g. jepa_pretrain.masking.MultiBlock")
        tokens = exact(self._read(self.target, clip))  # (B, N, D), with depths (B, N, levels * D)
        target = self._normed(tokens)  # no gradient: EMA.forward has none
        losses, visible, regularities = [], [], []
        for masks in batch.masks:
            context = self._read(self.encoder, clip, masks.context)  # (B, K, D)
            predicted, seen = self._predict(context, masks)
            losses.append(self.loss(exact(predicted), gather_tokens(target, masks.targets)))
            visible.append(self._visible(seen, target, masks))
            regularities.append(self._regularity(context))
        loss = torch.stack(losses).mean()
        terms = {"prediction": loss.detach(), "target_std": distributed.gather(pool(target)).std(dim=0).mean()}
        if self.dense is not None:
            terms["visible"] = torch.stack(visible).mean().detach()
            loss = loss + self.dense.weight(self.progress) * torch.stack(visible).mean()
        if self.regularizer is not None:
            regularity = torch.stack(regularities).mean()
            terms["regularizer"] = regularity.detach()
            loss = loss + self.regularizer_weight * regularity
        return Output(loss, terms, pool(self._last(tokens)))

    def _read(self, encoder: nn.Module, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens of an encoder, at the depths that are predicted side by side."""
        return encoder(clip, keep, self.depths) if self.depths else encoder(clip, keep)

    def _last(self, tokens: Tensor) -> Tensor:
        """The last depth alone, (B, N, D)."""
        return tokens[..., -self.encoder.width :]

    def _normed(self, tokens: Tensor) -> Tensor:
        """Layer norm, each depth by itself."""
        width = self.encoder.width
        return F.layer_norm(tokens.unflatten(-1, (-1, width)), (width,)).flatten(-2)

    def _predict(self, context: Tensor, masks: Masks) -> tuple[Tensor, Tensor | None]:
        """Predicted target tokens (B, M, K', D), and context tokens (B, K, D) where those are predicted too."""
        predicted = self.predictor(context, masks)
        return predicted if self.dense is not None else (predicted, None)

    def _visible(self, seen: Tensor | None, target: Tensor, masks: Masks) -> Tensor:
        if self.dense is None:
            return target.new_zeros(())
        return self.dense(exact(seen), gather_tokens(target, masks.context), masks, self.encoder.grid)

    def _regularity(self, context: Tensor) -> Tensor:
        if self.regularizer is None:
            return context.new_zeros(())
        return self.regularizer([pool(self._last(context))])[0]

    def follow(self, progress: float) -> None:
        self.target.update(self.encoder, self.momentum(progress))
