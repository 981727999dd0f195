"""The narrow transformer that predicts target tokens from context tokens (I-JEPA, section 3), and its kin.

V-JEPA 2 turns queries and keys by their places (`RotaryPredictor`); V-JEPA 2.1 also predicts the tokens that are seen
(`DensePredictor`, `DenseRotaryPredictor`).
"""

from typing import ClassVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, Masks, UserError
from jepa_pretrain.models.rotary import RotaryBlock, Rotation, TiledRotation
from jepa_pretrain.models.vit import blocks, init_weights
from jepa_pretrain.ops import gather_tokens, sincos_3d


class MaskedPredictor(nn.Module):
    """Predicts the representation at masked positions; parameter names are those of Meta's I-JEPA.

    Args:
        encoder_width: width D of the tokens that come in and go out.
        grid: token grid of the encoder.
        width: inner width, narrower than the encoder's.
        depth: number of blocks.
        heads: attention heads, a divisor of the inner width.
        joint: predict all target blocks in one pass, where they see each other, instead of one pass per block as
            published; about three times quicker.
        fuse: hidden width of a two-layer map of the incoming tokens, as V-JEPA 2.1 has where several depths of the
            encoder come in side by side; None for a linear map.
        out: width of the tokens that go out; the same as come in by default.
    """

    block: ClassVar = Block

    def __init__(
        self,
        encoder_width: int,
        grid: Grid,
        width: int = 384,
        depth: int = 6,
        heads: int = 12,
        joint: bool = False,
        fuse: int | None = None,
        out: int | None = None,
    ) -> None:
        super().__init__()
        grid = Grid(*grid)
        self.config = dict(
            encoder_width=encoder_width, grid=list(grid), width=width, depth=depth, heads=heads, joint=joint, fuse=fuse
        ) | ({} if out is None else {"out": out})
        self.joint = joint
        if fuse is None:
            self.predictor_embed = nn.Linear(encoder_width, width)
        else:
            self.predictor_embed = nn.Sequential(nn.Linear(encoder_width, fuse), nn.GELU(), nn.Linear(fuse, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self._make_positions(width, heads, grid)
        self.predictor_blocks = blocks(depth, width, heads, block=self.block)
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self._make_heads(width, out or encoder_width)
        init_weights(self, self.predictor_blocks)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def _make_positions(self, width: int, heads: int, grid: Grid) -> None:
        self.register_buffer("predictor_pos_embed", sincos_3d(width, grid).unsqueeze(0))  # (1, N, P)

    def _make_heads(self, width: int, out: int) -> None:
        self.predictor_proj = nn.Linear(width, out)

    def _place(self, x: Tensor, index: Tensor) -> Tensor:
        """Tell tokens (B, ..., P) where they are, before the blocks; index (B, ...)."""
        return x + gather_tokens(self.predictor_pos_embed.expand(len(index), -1, -1), index)

    def _places(self, masks: Masks) -> tuple[Tensor, ...]:
        """What the blocks are told of the tokens' places, beside the tokens."""
        return ()

    def _join(self, context: Tensor, targets: Tensor) -> Tensor:
        """(B, K, ...) and (B, M, K', ...) -> (B, K + M K', ...), or (B M, K + K', ...) for one pass per block."""
        if self.joint:
            return torch.cat([context, targets.flatten(1, 2)], dim=1)
        return torch.cat([context.repeat_interleave(targets.shape[1], dim=0), targets.flatten(0, 1)], dim=1)

    def hidden(self, context: Tensor, masks: Masks, kind: Tensor | None = None) -> Tensor:
        """Normed inner tokens of context and targets, joined: `(B, K + M K', P)` or `(B M, K + K', P)`.

        `kind` `(1, 1, P)` is added to all of them before the blocks.
        """
        x = self._place(self.predictor_embed(context), masks.context)  # (B, K, P)
        query = self._place(self.mask_token.unsqueeze(1), masks.targets)  # (B, M, K', P)
        query = query.expand(*masks.targets.shape, -1)
        x, places = self._join(x, query), self._places(masks)
        x = x if kind is None else x + kind
        for block in self.predictor_blocks:
            x = block(x, *places)
        return self.predictor_norm(x)

    def forward(self, context: Tensor, masks: Masks) -> Tensor:
        """`(B, K, D)` context tokens -> `(B, M, K', D)` predicted target tokens."""
        x = self.hidden(context, masks)[:, masks.context.shape[1] :]
        return self.predictor_proj(x).reshape(*masks.targets.shape, -1)


class RotaryPredictor(MaskedPredictor):
    """A `MaskedPredictor` with rotary positions, as V-JEPA 2.1's; the arguments are the same."""

    block: ClassVar = RotaryBlock
    rotation: ClassVar = Rotation

    def _make_positions(self, width: int, heads: int, grid: Grid) -> None:
        self.rotate = self.rotation(width // heads, grid)

    def _place(self, x: Tensor, index: Tensor) -> Tensor:
        return x  # its place is told in every block

    def _places(self, masks: Masks) -> tuple[Tensor, ...]:
        return self.rotate(self._join(masks.context, masks.targets))


class TiledRotaryPredictor(RotaryPredictor):
    """A `RotaryPredictor` with V-JEPA 2's own frequencies, for its weights."""

    rotation: ClassVar = TiledRotation


class DensePredictor(MaskedPredictor):
    """A `MaskedPredictor` that predicts the tokens that are seen too, through a last layer of its own (V-JEPA 2.1).

    The arguments are the same; `joint` is needed where the masks have several target blocks.
    """

    def _make_heads(self, width: int, out: int) -> None:
        super()._make_heads(width, out)
        self.predictor_proj_context = nn.Linear(width, out)

    def forward(self, context: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """`(B, K, D)` context tokens -> predicted target tokens `(B, M, K', D)` and context tokens `(B, K, D)`."""
        return self._dense(context, masks)

    def _dense(self, context: Tensor, masks: Masks, kind: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if masks.targets.shape[1] > 1 and not self.joint:
            raise UserError("several target blocks and a dense prediction: set predictor.joint to true")
        x = self.hidden(context, masks, kind)
        seen, hidden = x[:, : masks.context.shape[1]], x[:, masks.context.shape[1] :]
        return self.predictor_proj(hidden).reshape(*masks.targets.shape, -1), self.predictor_proj_context(seen)


class DenseRotaryPredictor(RotaryPredictor, DensePredictor):
    """V-JEPA 2.1's predictor: rotary positions, and the tokens that are seen are predicted too."""
