"""Rotary positions in three dimensions (V-JEPA 2, Assran et al. 2025, https://arxiv.org/abs/2506.09985, section 2.1).

The width d of an attention head is shared by time, row and column: d // 6 pairs of channels each, in this order; what
is left over is not turned. Pair i of an axis, channels (2i, 2i + 1), is turned by position * 10000 ** (-i / pairs). A
score then depends on how far query and key lie apart, not on where they lie.
"""

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError


class Rotation(nn.Module):
    """Cosine and sine of the angle by which each channel of each token is turned, as in V-JEPA 2.1.

    Args:
        width: channels of an attention head d, even, six or more.
        grid: token grid.
        span: rows and columns are stretched, so that the last is at `span - 1` whatever the grid; as they are without.
    """

    def __init__(self, width: int, grid: Grid, span: int | None = None) -> None:
        super().__init__()
        if width < 6 or width % 2:
            raise UserError(f"rotary positions need an even number of channels per head, 6 or more, not {width}")
        pairs = width // 6
        frequency = self.per_channel(10000.0 ** -(torch.arange(pairs, dtype=torch.float64) / pairs))  # (2 pairs,)
        places = [torch.arange(n, dtype=torch.float64) for n in grid]
        if span is not None:
            places[1:] = [one * (span - 1) / max(len(one) - 1, 1) for one in places[1:]]
        axes = torch.meshgrid(*places, indexing="ij")  # t, h, w
        angle = torch.cat([axis.flatten()[:, None] * frequency for axis in axes], dim=1)
        angle = F.pad(angle, (0, width - angle.shape[1]))  # (N, d)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    @staticmethod
    def per_channel(frequency: Tensor) -> Tensor:
        """Frequencies of the pairs (P,) -> of the channels (2P,): both channels of a pair turn alike."""
        return frequency.repeat_interleave(2)

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Token indices (B, K) or (K,) -> cosine and sine, each (B, 1, K, d) or (1, K, d), one for all heads."""
        return self.cos[index].unsqueeze(-3), self.sin[index].unsqueeze(-3)


class TiledRotation(Rotation):
    """As in V-JEPA 2, whose weights need it: the channels of a pair differ in frequency, so it is no pure rotation.

    The list of frequencies is laid out twice in a row instead of each frequency twice; V-JEPA 2.1 mended that.
    """

    @staticmethod
    def per_channel(frequency: Tensor) -> Tensor:
        """Frequencies (P,) -> of the channels (2P,): channel c has frequency c mod P."""
        return frequency.repeat(2)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the channel pairs of `x` (B, heads, K, d)."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    across = torch.stack([-second, first], dim=-1).flatten(-2)
    return (x * cos + across * sin).to(x.dtype)


class RotaryAttention(Attention):
    """timm's attention, with queries and keys turned by their tokens' positions."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, K, D)`, the rotation of its tokens, `mask` (K, K) True where attended, or all -> `(B, K, D)`."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, K, d)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        x = F.scaled_dot_product_attention(q, k, v, mask) if self.fused_attn else self._plain(q, k, v, mask)
        return self.proj(x.transpose(1, 2).flatten(2))

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = q * self.scale @ k.mT  # (B, heads, K, K)
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v


class RotaryBlock(Block):
    """timm's pre-norm block around `RotaryAttention`; the arguments and the parameter names are timm's.

    Args:
        dim: features per token D.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over the width.
        qkv_bias: whether queries, keys and values have a bias.
        norm_layer: makes the norms.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = True, norm_layer=nn.LayerNorm
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, qkv_bias=qkv_bias, norm_layer=norm_layer)
        self.attn = RotaryAttention(dim, num_heads, qkv_bias=qkv_bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, K, D)`, the rotation of its tokens, `mask` as in `RotaryAttention` -> `(B, K, D)`."""
        x = x + self.attn(self.norm1(x), cos, sin, mask)
        return x + self.mlp(self.norm2(x))
