"""Vision transformer (Dosovitskiy et al. 2021) that can drop tokens, from timm's layers under timm's names.

No class token; fixed sine-cosine positions, as in I-JEPA (Assran et al. 2023, https://arxiv.org/abs/2301.08243).

    size    width  depth  heads        size    width  depth  heads
    tiny      192     12      3        large    1024     24     16
    small     384     12      6        huge     1280     32     16
    base      768     12     12        giant    1408     40     16   (mlp_ratio 48 / 11)
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.models.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from jepa_pretrain.models.patches import PatchEmbed
from jepa_pretrain.ops import gather_tokens, sincos_3d


def blocks(depth: int, width: int, heads: int, mlp_ratio: float = 4.0, block: type[Block] = Block) -> nn.ModuleList:
    """Pre-norm transformer blocks as in timm's ViT."""
    norm = partial(nn.LayerNorm, eps=1e-6)
    return nn.ModuleList(block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))


def init_weights(module: nn.Module, stack: nn.ModuleList) -> None:
    """Initialise a transformer, once.

    | part | weight | bias |
    |---|---|---|
    | linear and patch embedding | truncated normal, .02 | 0 |
    | last linear of attention and of MLP in block i (from 1) | the same, divided by sqrt(2 i) | 0 |
    | layer norm | 1 | 0 |
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    with torch.no_grad():
        for i, block in enumerate(stack, start=1):
            block.attn.proj.weight.div_((2.0 * i) ** 0.5)
            block.mlp.fc2.weight.div_((2.0 * i) ** 0.5)


def use_plain_attention(module: nn.Module) -> None:
    """Spell attention out as matrix products instead of torch's fused kernel; see `plain_attention_is_quicker`."""
    for part in module.modules():
        if isinstance(part, Attention):
            part.fused_attn = False


def plain_attention_is_quicker() -> bool:
    """Whether matrix products are the quicker attention in bf16 on this CPU: where it has instructions for them.

    There they took a third of the fused kernel's time; where bf16 products are emulated, 15 times as long.
    """
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class ViT(nn.Module):
    """Vision transformer on images or clips.

    Args:
        image_size: side of the square picture, pixels.
        patch: side of a patch, pixels.
        width: features per token D.
        depth: number of blocks.
        heads: attention heads, a divisor of the width.
        mlp_ratio: hidden width of the MLP over the width.
        frames: frames of a clip, 1 for images.
        tubelet: frames per patch.
        mean: pixel mean per channel, on the scale 0..1.
        std: pixel deviation per channel, on the scale 0..1.
    """

    block: ClassVar = Block

    def __init__(
        self,
        image_size: int = 224,
        patch: int = 16,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        frames: int = 1,
        tubelet: int = 1,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if image_size % patch or frames % tubelet:
            raise UserError(
                f"a picture of {image_size} px does not divide into patches of {patch} px"
                if image_size % patch
                else f"a clip of {frames} frames does not divide into tubelets of {tubelet}"
            )
        if width % heads:
            raise UserError(f"the width {width} does not divide into {heads} heads")
        self.config = dict(
            image_size=image_size, patch=patch, width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio,
            frames=frames, tubelet=tubelet, mean=list(mean), std=list(std),
        )  # fmt: skip
        self.grid = Grid(frames // tubelet, image_size // patch, image_size // patch)
        self.width, self.image_size = width, image_size
        self.normalise = Normalise(mean, std)
        self._make_patches(patch, tubelet)
        self._make_positions(heads)
        self.blocks = blocks(depth, width, heads, mlp_ratio, self.block)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        init_weights(self, self.blocks)

    def _make_patches(self, patch: int, tubelet: int) -> None:
        self.patch_embed = PatchEmbed(patch, tubelet, self.width)

    def _make_positions(self, heads: int) -> None:
        self.register_buffer("pos_embed", sincos_3d(self.width, self.grid).unsqueeze(0))  # (1, N, D)

    def _patches(self, clip: Tensor, keep: Tensor | None) -> Tensor:
        """Patch tokens without positions; clip (B, C, T, H, W), normalised."""
        return self.patch_embed(clip, keep)

    def _place(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Tell tokens (B, N or K, D) where they are, before the blocks."""
        if keep is None:
            return x + self.pos_embed  # no batch size in it, which a traced graph would keep
        return x + gather_tokens(self.pos_embed.expand(len(x), -1, -1), keep)

    def _places(self, count: int, keep: Tensor | None) -> tuple[Tensor, ...]:
        """What the blocks are told of the tokens' places, beside the tokens."""
        return ()

    def _check(self, tokens: int, clip: Tensor) -> None:
        if tokens != self.grid.tokens:
            frames, side = self.config["frames"], self.image_size
            asked = f"{side}x{side} pictures" + (f", {frames} to a clip" if frames > 1 else "")
            raise UserError(f"this encoder takes {asked}; got {tuple(clip.shape[2:])} (frames, height, width)")

    def embed(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """Patch tokens with their positions: `(B, C, T, H, W)` -> `(B, N or K, D)`."""
        x = self._patches(self.normalise(clip), keep)
        if keep is None:
            self._check(x.shape[1], clip)
        return self._place(x, keep)

    def _normed(self, x: Tensor, number: int) -> Tensor:
        """Tokens after the block of this number, normed."""
        return self.norm(x)

    def _after(self, clip: Tensor, keep: Tensor | None, depths: Sequence[int]) -> list[Tensor]:
        """Normed tokens after the blocks of these numbers, counted from 1."""
        if not all(0 < depth <= len(self.blocks) for depth in depths):
            raise UserError(f"this encoder has blocks 1 to {len(self.blocks)}; there are none at {tuple(depths)}")
        x, kept = self.embed(clip, keep), []
        places = self._places(x.shape[1], keep)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, *places)
            if number in depths:
                kept.append(self._normed(x, number))
        return kept

    def forward(self, clip: Tensor, keep: Tensor | None = None, depths: Sequence[int] = ()) -> Tensor:
        """Tokens of a clip; see `contracts.Encoder`.

        Args:
            clip: `(B, C, T, H, W)`, uint8 in 0..255 or float in 0..1.
            keep: `(B, K)` the tokens to compute; all without it.
            depths: numbers of blocks, from 1, whose outputs stand side by side in the result, in the blocks' order;
                the last block's alone by default.

        Returns:
            `(B, N or K, D)`, with `depths` `(B, N or K, len(depths) * D)`.
        """
        layers = self._after(clip, keep, depths or (len(self.blocks),))
        return layers[0] if len(layers) == 1 else torch.cat(layers, dim=-1)

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """Normed tokens after each of the last `layers` blocks, oldest first, each `(B, N, D)`."""
        return self._after(clip, None, range(max(len(self.blocks) - layers, 0) + 1, len(self.blocks) + 1))
