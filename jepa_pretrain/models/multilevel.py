"""V-JEPA 2.1 as it was released (Mur-Labadia et al. 2026, https://arxiv.org/abs/2603.14482).

Beside `MixedViT`, four depths of the encoder have a norm each; beside `DenseRotaryPredictor`, the predictor is told
pictures from clips. In both, rows and columns are stretched to those of a picture of 256 px, so that another resolution
leaves the places of things where they were.
"""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, Masks, UserError
from jepa_pretrain.models.normalise import IMAGENET_MEAN, IMAGENET_STD
from jepa_pretrain.models.predictor import DenseRotaryPredictor
from jepa_pretrain.models.rotary_vit import MixedViT

LEVELS = {12: (3, 6, 9, 12), 24: (6, 12, 18, 24), 40: (10, 20, 30, 40), 48: (12, 24, 38, 48)}  # by depth; from 1
SEEN = 256  # pixels of the pictures whose rows and columns all others are stretched to


class MultilevelViT(MixedViT):
    """A `MixedViT` whose outputs at four depths, the levels, have a norm each; the arguments are those of `ViT`.

    Raises:
        UserError: a depth for which V-JEPA 2.1 has no levels.
    """

    def __init__(
        self,
        image_size: int = 384,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        frames: int = 64,
        tubelet: int = 2,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        if depth not in LEVELS:
            raise UserError(f"V-JEPA 2.1 has encoders of {', '.join(map(str, LEVELS))} blocks, not of {depth}")
        super().__init__(image_size, patch, width, depth, heads, mlp_ratio, frames, tubelet, mean, std)
        self.levels = LEVELS[depth]
        del self.norm  # each level has its own
        self.norms_block = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in self.levels)

    def _make_positions(self, heads: int) -> None:
        self.rotate = self.rotation(self.width // heads, self.grid, span=SEEN // self.config["patch"])

    def _normed(self, x: Tensor, number: int) -> Tensor:
        if number not in self.levels:
            raise UserError(f"this encoder has norms after blocks {self.levels}, there is none after {number}")
        return self.norms_block[self.levels.index(number)](x)

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """Normed tokens of the last `layers` levels, oldest first, each `(B, N, D)`."""
        return self._after(clip, None, self.levels[-layers:])


class MultilevelPredictor(DenseRotaryPredictor):
    """A `DenseRotaryPredictor` that is told pictures from clips.

    Args:
        encoder_width: width of the tokens that come in; several levels' side by side.
        grid: token grid of the encoder.
        width: inner width.
        depth: number of blocks.
        heads: attention heads, a divisor of the inner width.
        joint: predict all target blocks in one pass.
        fuse: hidden width of a two-layer map of the incoming tokens; None for a linear map.
        out: width of the tokens that go out: several levels' side by side, or a larger teacher's.
        span: rows and columns that those of the grid are stretched to.
    """

    def __init__(
        self,
        encoder_width: int,
        grid: Grid,
        width: int = 384,
        depth: int = 12,
        heads: int = 12,
        joint: bool = False,
        fuse: int | None = None,
        out: int | None = None,
        span: int = 16,
    ) -> None:
        self.span = span  # before the positions are made
        super().__init__(encoder_width, grid, width, depth, heads, joint, fuse, out)
        self.config["span"] = span
        self.img_mod_embed = nn.Parameter(1e-6 * torch.randn(1, 1, width))
        self.video_mod_embed = nn.Parameter(1e-6 * torch.randn(1, 1, width))

    def _make_positions(self, width: int, heads: int, grid: Grid) -> None:
        self.rotate = self.rotation(width // heads, grid, self.span)

    def forward(self, context: Tensor, masks: Masks, picture: bool = False) -> tuple[Tensor, Tensor]:
        """As `DensePredictor`; `picture` says that the tokens are of pictures, not of clips."""
        kind, idle = self.video_mod_embed, self.img_mod_embed
        kind, idle = (idle, kind) if picture else (kind, idle)
        return self._dense(context, masks, kind + 0.0 * idle)  # both have a gradient, as data-parallel ranks require
