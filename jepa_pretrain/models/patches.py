"""From pixels to patch tokens."""

import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.ops import gather_tokens


class PatchEmbed(nn.Module):
    """Linear embedding of non-overlapping patches (or tubelets) of a clip.

    The weight is stored as a convolution's, under timm's name `proj`, two-dimensional when `tubelet` is 1. It is
    applied as one matrix product, so that only the kept patches are embedded.

    Args:
        patch: side of a patch, pixels.
        tubelet: frames of a patch.
        width: features per token D.
    """

    def __init__(self, patch: int, tubelet: int, width: int) -> None:
        super().__init__()
        self.patch, self.tubelet = patch, tubelet
        if tubelet == 1:
            self.proj = nn.Conv2d(3, width, patch, patch)
        else:
            self.proj = nn.Conv3d(3, width, (tubelet, patch, patch), (tubelet, patch, patch))

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """`(B, C, T, H, W)` float, `keep` (B, K) -> `(B, N or K, D)`."""
        _, _, frames, height, width = clip.shape
        t, p = self.tubelet, self.patch
        if frames % t or height % p or width % p:
            raise UserError(f"a {frames}x{height}x{width} clip does not divide into {t}x{p}x{p} patches")
        x = clip.unflatten(4, (-1, p)).unflatten(3, (-1, p)).unflatten(2, (-1, t))  # (B, C, T/t, t, H/p, p, W/p, p)
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)  # (B, N, C * t * p * p)
        if keep is not None:
            x = gather_tokens(x, keep)  # (B, K, C * t * p * p)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)
