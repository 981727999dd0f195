"""The narrow transformer that predicts target tokens from context tokens (I-JEPA, section 3)."""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, Masks
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
    """

    def __init__(
        self, encoder_width: int, grid: Grid, width: int = 384, depth: int = 6, heads: int = 12, joint: bool = False
    ) -> None:
        super().__init__()
        self.joint = joint
        self.predictor_embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("predictor_pos_embed", sincos_3d(width, grid).unsqueeze(0))  # (1, N, P)
        self.predictor_blocks = blocks(depth, width, heads)
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor_proj = nn.Linear(width, encoder_width)
        init_weights(self, self.predictor_blocks)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, context: Tensor, masks: Masks) -> Tensor:
        """`(B, K, D)` context tokens -> `(B, M, K', D)` predicted target tokens."""
        batch, count, size = masks.targets.shape
        position = self.predictor_pos_embed.expand(batch, -1, -1)
        x = self.predictor_embed(context) + gather_tokens(position, masks.context)  # (B, K, P)
        query = self.mask_token.unsqueeze(1) + gather_tokens(position, masks.targets)  # (B, M, K', P)
        if self.joint:
            x = torch.cat([x, query.flatten(1, 2)], dim=1)  # (B, K + M K', P)
        else:
            x = torch.cat([x.repeat_interleave(count, dim=0), query.flatten(0, 1)], dim=1)  # (B M, K + K', P)
        for block in self.predictor_blocks:
            x = block(x)
        x = self.predictor_norm(x[:, masks.context.shape[1] :])
        return self.predictor_proj(x).reshape(batch, count, size, -1)
