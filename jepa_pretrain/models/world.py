"""A world model: pictures to states, and s[t+1] = Pred(s[t], a[t], z[t]) (LeCun 2022, section 4.1).

A picture gives tokens, by an encoder that is frozen or trained along; a projector pools them to the state; the dynamics
predict states. A step of the model is a block of steps of the environment, whose actions are joined. Where one picture
does not tell how things move, a state is made of the picture of now and those of the blocks before (`glances`).
"""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.models.described import described
from jepa_pretrain.models.glances import CHANNELS, Motion, at_rest
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.models.standardise import Standardise


class World(nn.Module):
    """What an agent plans with, and as an encoder of single frames what probes and exports can read.

    Args:
        encoder: frames to tokens.
        dynamics: `ResidualMLP` or `TemporalPredictor` on states of one token; its `actions` are those of a block.
        width: width D of the state.
        hidden: widths of the projector's hidden layers; empty for a linear projector, which cannot hold much back.
        block: steps of the environment per step of the model.
        frozen: the encoder is not trained and stays in evaluation mode.
        low: least value of each number of an environment's action, which planners keep to; empty where actions are
            choices, one-hot.
        high: largest value of each.
        frames: pictures that make a state, a block of steps apart: 2 tell speed.
        standardise: bring the encoder's features to one scale, which `standard.fit` measures; for a frozen encoder.

    Raises:
        UserError: dynamics of another width, or of other than one token.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dynamics: nn.Module,
        width: int = 64,
        hidden: tuple[int, ...] = (256,),
        block: int = 5,
        frozen: bool = True,
        low: tuple[float, ...] = (),
        high: tuple[float, ...] = (),
        frames: int = 1,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        if dynamics.state_width != width:
            raise UserError(f"the dynamics take states of width {dynamics.state_width}, the world's is {width}")
        if block < 1 or dynamics.actions % block:
            raise UserError(f"a block of {block} environment steps does not divide {dynamics.actions} action numbers")
        if frames < 1:
            raise UserError(f"a state is made of one picture or more, not {frames}")
        if standardise and not frozen:
            raise UserError("features of an encoder that is trained along have no fixed scale: standardise frozen ones")
        if len(low) != len(high) or (low and len(low) * block != dynamics.actions):
            raise UserError(
                f"{len(low)} low and {len(high)} high bounds for {dynamics.actions // block} action numbers"
            )
        self.config = dict(
            encoder=described(encoder), dynamics=described(dynamics), width=width, hidden=list(hidden), block=block,
            frozen=frozen, low=list(low), high=list(high), frames=frames,
            standardise=standardise,
        )  # fmt: skip
        self.low, self.high = tuple(low), tuple(high)
        self.width, self.block, self.frozen, self.grid = width, block, frozen, Grid(1, 1, 1)
        self.image_size, self.normalise = encoder.image_size, encoder.normalise
        self.frames = frames
        self.encoder = encoder.requires_grad_(not frozen)
        features = encoder.grid.tokens * encoder.width
        self.standard = Standardise(features) if standardise else nn.Identity()
        self.projector = Projector(features, tuple(hidden), width)
        self.motion = Motion(width, frames) if frames > 1 else None
        self.dynamics = dynamics
        self.train(self.training)

    def train(self, mode: bool = True) -> "World":
        """Trains all but a frozen encoder."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def features(self, observations: Tensor) -> Tensor:
        """What the encoder makes of observations, which can be kept while it is frozen.

        Those of each picture in a row, so that single pictures will do too: `(B, 3 * n, H, W)` -> `(B, n * F)`.
        """
        pictures = observations.unflatten(1, (-1, CHANNELS))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.encoder(pictures.flatten(0, 1).unsqueeze(2)).flatten(1)
            return self.standard(features).reshape(len(observations), -1)

    def project(self, features: Tensor) -> Tensor:
        """`(B, frames * F)` -> states `(B, 1, D)`."""
        codes = self.projector(features.unflatten(1, (self.frames, -1)).flatten(0, 1)).unflatten(0, (-1, self.frames))
        return codes if self.motion is None else self.motion(codes).unsqueeze(1)

    def encode(self, observations: Tensor) -> Tensor:
        """`(B, 3 * frames, H, W)`, uint8 in 0..255 or float in 0..1, to states `(B, 1, D)`.

        The channels of the pictures in a row, that of now last; `agent.sight` puts them together.
        """
        wanted, found = (CHANNELS * self.frames, self.image_size, self.image_size), tuple(observations.shape[1:])
        if observations.dim() != 4 or found != wanted:
            shape, told = ", ".join(map(str, wanted)), "" if self.frames == 1 else f": {self.frames} pictures in a row"
            raise UserError(f"this world model takes frames (B, {shape}){told}, found {tuple(observations.shape)}")
        return self.project(self.features(observations))

    def step(self, state: Tensor, action: Tensor | None, z: Tensor | None = None) -> Tensor:
        """`(B, 1, D)`, `(B, A)`, `(B, Z)` -> the next state `(B, 1, D)`."""
        return self.rollout(state, *(None if one is None else one[:, None] for one in (action, z)))[:, 0]

    def rollout(self, state: Tensor, plan: Tensor | None, z: Tensor | None = None, horizon: int | None = 1) -> Tensor:
        """`(B, 1, D)`, `(B, L, A)`, `(B, L, Z)` -> the L states that follow, `(B, L, 1, D)`."""
        return self.dynamics.rollout(state, plan, z, horizon)

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """As an encoder: the state at a clip's first frame, `(B, C, T, H, W)` -> `(B, 1, D)`.

        Frames are observations, or single pictures, which are taken to be at rest.
        """
        if keep is not None:
            raise UserError("a world model cannot drop tokens: its state is one")
        first = clip[:, :, 0]
        return self.encode(at_rest(first, self.frames) if first.shape[1] == CHANNELS else first)

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """The state, behind the last `layers - 1` layers of its encoder, each `(B, N_i, D_i)`."""
        before = self.encoder.forward_layers(clip[:, -CHANNELS:, :1], layers - 1) if layers > 1 else []
        return [*before, self(clip)]
