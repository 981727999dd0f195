"""Prediction in time: Pred(s_t, a_t, z_t) -> s_{t+1}, causal, over tokens or pooled states.

A state is N tokens of width D, and L moments make `(B, L, N, D)`; a pooled state has N = 1. As in V-JEPA 2-AC
(arXiv 2506.09985) and DINO-WM (arXiv 2411.04983) a token sees all tokens of its own moment and of earlier ones. Actions
and latent variables come in through adaptive layer norm (Peebles and Xie 2023), whose gates start at zero.
"""

from functools import partial

import torch
from timm.layers import Attention, Mlp
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.models.vit import init_weights
from jepa_pretrain.ops import sincos_3d


class AdaLNBlock(nn.Module):
    """Pre-norm transformer block; a condition shifts, scales and gates both branches.

    Args:
        width: features per token.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over the width.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6, elementwise_affine=False)  # the condition is its affine part
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attn = Attention(width, heads, qkv_bias=True)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """`x` (B, L N, P), `condition` (B, L N, P), `mask` (L N, L N) True where attended -> (B, L N, P)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1, attn_mask=mask)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class TemporalPredictor(nn.Module):
    """Predicts the state after each moment from the states up to it.

    Args:
        state_width: width D of the states that come in and go out.
        grid: rows and columns of a state's tokens; (1, 1) for a pooled state.
        actions: width of the action at each moment; 0 without actions.
        latent: width of the latent variable at each moment; 0 without.
        width: inner width.
        depth: number of blocks.
        heads: attention heads, a divisor of the inner width.
        context: moments that a prediction looks back on at most.
        residual: predict the change of the state rather than the state.
    """

    def __init__(
        self,
        state_width: int,
        grid: tuple[int, int] = (1, 1),
        actions: int = 0,
        latent: int = 0,
        width: int = 192,
        depth: int = 4,
        heads: int = 8,
        context: int = 16,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"the predictor's width {width} does not divide into {heads} heads")
        if context < 1:
            raise UserError(f"a prediction looks back on 1 moment or more, not {context}")
        self.config = dict(
            state_width=state_width, grid=list(grid), actions=actions, latent=latent, width=width, depth=depth,
            heads=heads, context=context, residual=residual,
        )  # fmt: skip
        self.state_width, self.actions, self.latent = state_width, actions, latent
        self.grid, self.context, self.residual = tuple(grid), context, residual
        self.embed = nn.Linear(state_width, width)
        self.embed_action = nn.Linear(actions, width) if actions else None
        self.embed_latent = nn.Linear(latent, width) if latent else None
        # at least two moments, because a grid without time shares the width among two axes instead of three
        position = sincos_3d(width, Grid(max(context, 2), *self.grid)).unflatten(0, (-1, grid[0] * grid[1]))
        self.register_buffer("position", position)  # (context, N, P)
        self.blocks = nn.ModuleList(AdaLNBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, state_width)
        init_weights(self, self.blocks)
        for block in self.blocks:
            nn.init.zeros_(block.modulation[1].weight)
            nn.init.zeros_(block.modulation[1].bias)

    def forward(self, states: Tensor, actions: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """Teacher-forced: the state after each moment, from the true states up to it.

        Args:
            states: `(B, L, N, D)`, L at most `context`.
            actions: `(B, L, A)`, the action that leads from each moment to the next; None without actions.
            z: `(B, L, Z)`, the latent variable of each transition; None without.

        Returns:
            `(B, L, N, D)`; entry t is the prediction of the state at t + 1.
        """
        _, length, tokens, _ = states.shape
        if length > self.context:
            raise UserError(f"{length} moments are more than the predictor's context of {self.context}")
        x = self.embed(states) + self.position[:length]  # (B, L, N, P)
        condition = self._condition(x, actions, z).expand_as(x).flatten(1, 2)  # (B, L N, P)
        mask = self._mask(length, tokens, x.device)
        x = x.flatten(1, 2)
        for block in self.blocks:
            x = block(x, condition, mask)
        predicted = self.head(self.norm(x)).unflatten(1, (length, tokens))
        return states + predicted if self.residual else predicted

    def rollout(
        self, states: Tensor, plan: Tensor | None = None, z: Tensor | None = None, horizon: int | None = None
    ) -> Tensor:
        """Predict on from predictions.

        Args:
            states: `(B, N, D)`, or `(B, L0, N, D)` with what went before.
            plan: `(B, L0 - 1 + H, A)`, actions from the first given state on, so `(B, H, A)` for one state.
            z: `(B, L0 - 1 + H, Z)`, likewise.
            horizon: steps H, where neither actions nor latent variables say it.

        Returns:
            `(B, H, N, D)`, the states after the last given one.
        """
        states = states.unsqueeze(1) if states.dim() == 3 else states
        given = states.shape[1]
        known = next((x.shape[1] - given + 1 for x in (plan, z) if x is not None), horizon)
        if known is None or known < 1:
            raise UserError("a rollout needs a plan of a step or more, or a horizon")
        for _ in range(known):
            end = states.shape[1]
            start = max(0, end - self.context)
            window = [None if x is None else x[:, start:end] for x in (plan, z)]
            following = self(states[:, start:], *window)[:, -1:]
            states = torch.cat([states, following], dim=1)
        return states[:, given:]

    def _condition(self, x: Tensor, actions: Tensor | None, z: Tensor | None) -> Tensor:
        """Embedded actions and latent variables, summed: (B, L, 1, P)."""
        condition = x.new_zeros(*x.shape[:2], 1, x.shape[3])
        for name, given, embed, width in (
            ("actions", actions, self.embed_action, self.actions),
            ("latent variables", z, self.embed_latent, self.latent),
        ):
            found = 0 if given is None else given.shape[-1]
            if found != width:
                raise UserError(f"this predictor takes {name} of width {width}, got {found or 'none'}")
            if embed is not None:
                condition = condition + embed(given.to(x.dtype)).unsqueeze(2)
        return condition

    @staticmethod
    def _mask(length: int, tokens: int, device: torch.device) -> Tensor:
        """Who sees whom, (L N, L N): the own moment and earlier ones."""
        moment = torch.arange(length, device=device).repeat_interleave(tokens)
        return moment[:, None] >= moment[None, :]
