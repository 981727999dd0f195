"""Planning with latent dynamics models: the world model's own training (Sobal et al. 2025, arXiv 2502.14819).

From the states s_0 ... s_L of a stretch of behaviour, one every `block` frames, and its actions a_0 ... a_{L-1}:

    loss = mean_t |rollout_t(s_0, a_0 ... a_{t-1}) - s_t|^2        prediction, rolled out from the first state
         + weight * objective({s_t})                               variance and covariance, or SIGReg
         + similarity * mean_t |s_{t+1} - s_t|^2                   states change slowly
         + inverse * mean_t |inverse(s_t, s_{t+1}) - a_t|^2        the action can be told from what it did

With `VarianceCovarianceLoss` that is PLDM's recipe, and eb_jepa's; with `SIGReg` and no similarity and no inverse model
it is LeWM's two terms (arXiv 2603.19312). Targets have gradients in both, as published.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import Batch, Output, UserError
from jepa_pretrain.methods.base import Method
from jepa_pretrain.models.glances import CHANNELS
from jepa_pretrain.models.world import World
from jepa_pretrain.optim import OptimizerRecipe


class Weights(NamedTuple):
    """What the terms beside the prediction weigh."""

    objective: float
    similarity: float
    inverse: float


class PLDM(Method):
    """Trains a world model on recorded behaviour.

    Args:
        world: the world model; it is what is exported.
        objective: anti-collapse objective on the states of each moment, such as `VarianceCovarianceLoss` or `SIGReg`.
        optimizer: the optimiser, with its schedules.
        weight: weight of the objective.
        similarity: weight of the change from state to state.
        inverse: weight of the inverse model; it is not exported.
        compile: compile the modules with `torch.compile`.
    """

    def __init__(
        self,
        world: World,
        objective: nn.Module,
        optimizer: OptimizerRecipe,
        weight: float = 1.0,
        similarity: float = 12.0,
        inverse: float = 1.0,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, compile)
        self.world, self.objective = world, objective
        self.weights = Weights(weight, similarity, inverse)
        actions = world.dynamics.actions
        self.inverse = None
        if inverse and actions:
            self.inverse = nn.Sequential(nn.Linear(2 * world.width, 256), nn.ReLU(), nn.Linear(256, actions))

    @property
    def export_name(self) -> str:
        return "world"

    def step(self, batch: Batch) -> Output:
        states, actions = self._moments(batch)  # (B, L + 1, 1, D), (B, L, A) or None
        predicted = self.world.rollout(states[:, 0], actions, horizon=states.shape[1] - 1)
        terms = {
            "prediction": F.mse_loss(predicted, states[:, 1:]),
            "regularizer": self.objective(list(states[:, :, 0].unbind(1)))[0],
            "similarity": F.mse_loss(states[:, 1:], states[:, :-1]),
        }
        w = self.weights
        loss = terms["prediction"] + w.objective * terms["regularizer"] + w.similarity * terms["similarity"]
        if self.inverse is not None:
            pairs = torch.cat([states[:, :-1, 0], states[:, 1:, 0]], dim=-1)
            terms["inverse"] = F.mse_loss(self.inverse(pairs), actions)
            loss = loss + w.inverse * terms["inverse"]
        terms["still"] = F.mse_loss(states[:, :1].expand_as(predicted), states[:, 1:])  # predicting that nothing moves
        terms["std"] = states.detach().flatten(0, 2).std(dim=0).mean()
        features = states[:, 0, 0].detach().float()
        return Output(loss, {name: term.detach() for name, term in terms.items()}, features)

    def _moments(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """States at every `block`-th frame, and the joined actions between them.

        The clip is `(B, C, T, H, W)` uint8 with all frames, or with observations of several. Or it is float: features
        of a frozen encoder for every `block`-th frame, `(B, F, L + 1, 1, 1)`, as `agent train` keeps them.
        """
        clip, block = batch.views[0], self.world.block
        kept = clip.is_floating_point()
        seen = clip if kept else clip[:, :, ::block]
        frames = (seen if kept else self._joining(seen)).transpose(1, 2)  # (B, L + 1, ...)
        length = frames.shape[1] - 1
        before = (seen.shape[2] - frames.shape[1]) * block  # frames that are only looked back on
        if length < 1:
            wanted = (4 + self.world.frames - 1) * block + 1
            raise UserError(f"clips of {clip.shape[2]} frames hold no step of {block}: take {wanted} or so")
        flat = frames.flatten(0, 1)
        features = flat.flatten(1) if kept else self.world.features(flat)
        states = self.world.project(features).unflatten(0, (-1, length + 1))
        return states, self._joined(None if batch.actions is None else batch.actions[:, before:], length)

    def _joining(self, seen: Tensor) -> Tensor:
        """Single pictures, as `Shards` gives them, to observations: the first moments have nothing before them.

        `(B, 3, M, H, W)` -> `(B, 3 * frames, M - frames + 1, H, W)`; observations stay as they are.
        """
        frames = self.world.frames
        if frames == 1 or seen.shape[1] != CHANNELS:
            return seen
        moments = max(seen.shape[2] - frames + 1, 0)
        return torch.cat([seen[:, :, first : first + moments] for first in range(frames)], dim=1)

    def _joined(self, actions: Tensor | None, length: int) -> Tensor | None:
        """Actions at all frames `(B, T, a)` -> those of each block in a row, `(B, L, block * a)`."""
        wanted, block = self.world.dynamics.actions, self.world.block
        if not wanted:
            return None
        found = 0 if actions is None else actions.shape[2] * block
        if found != wanted:
            width = f"{actions.shape[2]} numbers, {block} times" if found else "none"
            raise UserError(f"the world model takes actions of width {wanted} per step, the data have {width}")
        return actions[:, : length * block].unflatten(1, (length, block)).flatten(2)
