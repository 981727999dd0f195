"""One level of a hierarchy: states of the states below, its own actions, its own prediction; no loss."""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.abstraction import MacroActions, StateEncoder
from jepa_pretrain.models.described import described
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.latent import Latent
from jepa_pretrain.models.reading import window
from jepa_pretrain.models.temporal import TemporalPredictor


class Level(nn.Module):
    """A JEPA on the representations of the level below; it moves `stride` of its moments at once.

    Args:
        predictor: predicts this level's next state; `ResidualMLP` from the present one alone.
        encoder: makes this level's states; None takes every stride-th state below as it is, so that both levels share
            one latent space (HWM, arXiv 2604.03208).
        stride: moments below from one moment to the next.
        macro: makes the macro-action of each transition; None joins the actions below of a stride.
        latent: what cannot be known of the next state; None where the prediction has to do without.
        moments: first moments of a clip that the prediction is trained on, at most the predictor's context and one
            more; None for all. Higher levels read frames far apart, lower ones need only a few: what is left over is
            not encoded.
    """

    def __init__(
        self,
        predictor: TemporalPredictor | ResidualMLP,
        encoder: StateEncoder | None = None,
        stride: int = 1,
        macro: MacroActions | None = None,
        latent: Latent | None = None,
        moments: int | None = None,
    ) -> None:
        super().__init__()
        self.predictor, self.encoder, self.macro, self.latent = predictor, encoder, macro, latent
        self.stride, self.moments = stride, moments
        self.width, self.grid = predictor.state_width, predictor.grid
        self.actions = predictor.actions
        self.config = dict(
            predictor=described(predictor), encoder=described(encoder), stride=stride, macro=described(macro),
            latent=described(latent), moments=moments,
        )  # fmt: skip
        self._check()

    @property
    def window(self) -> int:
        """Moments below that a state reads."""
        return self.encoder.window if self.encoder else 1

    @property
    def whole(self) -> int:
        """The first moment whose window lies inside the clip: earlier ones read the clip's first moment repeatedly."""
        return -(-(self.window - 1) // self.stride)

    @property
    def reads_states(self) -> bool:
        """Whether the macro-actions are made of the states below."""
        return self.macro is not None and self.macro.of_states

    @property
    def reads_actions(self) -> bool:
        """Whether the actions are made of the actions below."""
        return self.actions > 0 and not self.reads_states

    def _check(self) -> None:
        if self.stride < 1 or (self.moments is not None and self.moments < 2):
            raise UserError(f"a level has a stride of 1 or more and 2 moments or more: {self.stride}, {self.moments}")
        made = (self.encoder.width, self.encoder.grid) if self.encoder else (self.width, self.grid)
        if made != (self.width, self.grid):
            raise UserError(f"the encoder makes states {made}, the predictor takes {(self.width, self.grid)}")
        if self.macro and self.macro.width != self.actions:
            raise UserError(f"macro-actions are {self.macro.width} wide, the predictor takes {self.actions}")
        if self.macro and self.macro.length != self.stride + self.macro.of_states:
            raise UserError(f"with a stride of {self.stride} the macro-action's length is not {self.macro.length}")
        width, state = (self.latent.width, self.latent.state_width) if self.latent else (0, self.width)
        if (width, state) != (self.predictor.latent, self.width):
            raise UserError(
                f"the latent variable is {width} wide for states of {state}; "
                f"the predictor takes {self.predictor.latent} and states of {self.width}"
            )

    def states(self, below: Tensor, have: list[int], moments: list[int]) -> Tensor:
        """The states of some moments.

        Args:
            below: `(B, Lb, Nb, Db)`, states of the level below.
            have: which moments they are, Lb of them, in order.
            moments: which of this level's moments to make, L of them.

        Returns:
            `(B, L, N, D)`.
        """
        place = {moment: i for i, moment in enumerate(have)}
        index = torch.tensor([[place[i] for i in window(moment, self)] for moment in moments], device=below.device)
        picked = below[:, index]  # (B, L, window, Nb, Db)
        return self.encoder(picked) if self.encoder else picked[:, :, 0]

    def abstract(self, below: Tensor) -> Tensor:
        """States of all moments in a sequence from below: `(B, Lb, Nb, Db)` -> `(B, (Lb - 1) // stride + 1, N, D)`."""
        length = below.shape[1]
        return self.states(below, list(range(length)), list(range((length - 1) // self.stride + 1)))

    def transitions(self, actions: Tensor | None, below: Tensor | None, count: int) -> Tensor | None:
        """The (macro-)actions of the first `count` transitions, `(B, count, A)`; None at a level without.

        Args:
            actions: `(B, at least count * stride, Ab)`, those of the level below.
            below: `(B, at least count * stride + 1, Nb, Db)`, its states from the first on, where they are read.
            count: how many.
        """
        if not self.actions:
            return None
        if self.reads_states:
            pooled = below[:, : count * self.stride + 1].mean(2)  # (B, count stride + 1, Db)
            return self.macro(pooled.unfold(1, self.stride + 1, self.stride).mT)
        if actions is None:
            raise UserError(f"the predictor takes actions of width {self.actions}, but nothing gives it any")
        steps = actions[:, : count * self.stride].unflatten(1, (count, self.stride))  # (B, count, stride, Ab)
        return self.macro(steps) if self.macro else steps.flatten(2)
