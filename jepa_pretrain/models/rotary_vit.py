"""Vision transformers whose positions are rotations in the attention, and one for pictures and clips alike."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.patches import PatchEmbed
from jepa_pretrain.models.rotary import RotaryBlock, Rotation, TiledRotation
from jepa_pretrain.models.vit import ViT


class RotaryViT(ViT):
    """A `ViT` with rotary positions, as V-JEPA 2.1's; the arguments are the same.

    Clips may be shorter than `frames`, since every token is placed by itself. Parameter names are timm's, and Meta's.
    """

    block: ClassVar = RotaryBlock
    rotation: ClassVar = Rotation

    def _make_positions(self, heads: int) -> None:
        self.rotate = self.rotation(self.width // heads, self.grid)

    def _check(self, tokens: int, clip: Tensor) -> None:
        frame = self.grid.h * self.grid.w
        size = tuple(clip.shape[-2:])
        if size != (self.image_size, self.image_size) or not 0 < tokens <= self.grid.t * frame:
            super()._check(-1, clip)

    def _place(self, x: Tensor, keep: Tensor | None) -> Tensor:
        return x  # its place is told in every block

    def _places(self, count: int, keep: Tensor | None) -> tuple[Tensor, ...]:
        return self.rotate(torch.arange(count, device=self.rotate.cos.device) if keep is None else keep)


class TiledRotaryViT(RotaryViT):
    """A `RotaryViT` with V-JEPA 2's own frequencies, for its weights."""

    rotation: ClassVar = TiledRotation


class MixedViT(RotaryViT):
    """A `RotaryViT` for clips and for pictures, which have a patch embedding of their own, as in V-JEPA 2.1.

    A learned token, one for pictures and one for clips, is added to every patch. A batch holds one kind; a picture is
    a clip of one frame, and its tokens are those of a clip's first step, so its masks are drawn on Grid(1, h, w).
    """

    def _make_patches(self, patch: int, tubelet: int) -> None:
        if tubelet == 1:
            raise UserError("a tubelet of 1 does not tell pictures from clips: take a ViT, or tubelets of 2 frames")
        super()._make_patches(patch, tubelet)
        self.patch_embed_img = PatchEmbed(patch, 1, self.width)
        self.img_mod_embed = nn.Parameter(1e-6 * torch.randn(1, 1, self.width))
        self.video_mod_embed = nn.Parameter(1e-6 * torch.randn(1, 1, self.width))

    def _patches(self, clip: Tensor, keep: Tensor | None) -> Tensor:
        kinds = [(self.patch_embed_img, self.img_mod_embed), (self.patch_embed, self.video_mod_embed)]
        (embed, token), (idle, idle_token) = kinds if clip.shape[2] == 1 else kinds[::-1]
        unused = idle.proj.weight.sum() + idle.proj.bias.sum() + idle_token.sum()
        return embed(clip, keep) + token + 0.0 * unused  # all have a gradient, as data-parallel ranks require
