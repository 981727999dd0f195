"""Two branches and an objective: VICReg and its family (Bardes, Ponce and LeCun 2022, https://arxiv.org/abs/2105.04906).

z_v = projector(pool(encoder(view_v)))     for each augmented view v
loss = objective(z_1, z_2, ...)
"""

from collections.abc import Callable

from torch import nn

from jepa_pretrain.contracts import Batch, Encoder, Output, UserError
from jepa_pretrain.methods.base import Method
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.ops import pool
from jepa_pretrain.optim import OptimizerRecipe


class JointEmbedding(Method):
    """Makes embeddings of two views of a picture agree without collapsing.

    The views pass one after the other, as published: batch-norm statistics belong to a view.

    Args:
        encoder: any encoder; it is what is exported.
        projector: the expander, given the encoder's width.
        objective: loss on the list of embeddings, e.g. `VICRegLoss`.
        optimizer: the optimiser, with its schedules.
        compile: compile the modules with `torch.compile`.
    """

    def __init__(
        self,
        encoder: Encoder,
        projector: Callable[[int], Projector],
        objective: nn.Module,
        optimizer: OptimizerRecipe,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, compile)
        self.encoder = encoder
        self.projector = projector(encoder.width)
        self.objective = objective

    @property
    def export_name(self) -> str:
        return "encoder"

    def step(self, batch: Batch) -> Output:
        if len(batch.views) < 2:
            raise UserError(f"a joint embedding needs two views or more, the data gives {len(batch.views)}")
        if len(batch.views[0]) < 2:
            raise UserError("a joint embedding compares pictures: data.batch_size must be 2 or more per device, not 1")
        features = [pool(self.encoder(view)) for view in batch.views]  # V x (B, D)
        loss, terms = self.objective([self.projector(f) for f in features])
        return Output(loss, terms, features[0].detach().float())
