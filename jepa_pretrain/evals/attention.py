"""A classifier that attends to an encoder's tokens, as V-JEPA's (Bardes et al. 2024, https://arxiv.org/abs/2404.08471).

A learned query attends to the tokens; what it finds is added to it; a two-layer MLP with one GELU is added to that; a
layer norm and a linear layer give the classes. Tokens, and the MLP's input, are layer-normed, as in pre-norm blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 32  # features of an attention head, at least


class AttentiveProbe(nn.Module):
    """One cross-attention block with one query, and a linear classifier.

    Args:
        width: Features per token D.
        classes: Number of classes C.
        mlp_ratio: Hidden width of the MLP over the width.
    """

    def __init__(self, width: int, classes: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.heads = max(n for n in range(1, max(width // HEAD, 1) + 1) if width % n == 0)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm_tokens = nn.LayerNorm(width)
        self.ask = nn.Linear(width, width)
        self.tell = nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        hidden = int(mlp_ratio * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, N, D)` -> logits `(B, C)`."""
        x = self.query + self.merge(self._attend(self.norm_tokens(tokens)))  # (B, 1, D)
        x = x + self.mlp(self.norm_mlp(x))
        return self.classify(self.norm(x)).squeeze(1)

    def _attend(self, tokens: Tensor) -> Tensor:
        """What the query finds, (B, 1, D)."""
        query = self.ask(self.query).expand(len(tokens), -1, -1)
        heads = [
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, *self.tell(tokens).chunk(2, 2))
        ]
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
