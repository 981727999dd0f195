"""Dynamics of a pooled state: s[t+1] = s[t] + MLP(s[t], a[t], z[t])."""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError


class ResidualMLP(nn.Module):
    """Predicts the change of a pooled state; a rollout repeats it.

    Args:
        state_width: width D of the states.
        actions: width A of the action of a step; 0 without actions.
        latent: width Z of the latent variable; 0 without.
        hidden: width of the hidden layers.
        depth: number of hidden layers.
    """

    def __init__(self, state_width: int, actions: int = 0, latent: int = 0, hidden: int = 256, depth: int = 2) -> None:
        super().__init__()
        self.config = dict(state_width=state_width, actions=actions, latent=latent, hidden=hidden, depth=depth)
        self.state_width, self.actions, self.latent, self.grid = state_width, actions, latent, (1, 1)
        layers, width = [], state_width + actions + latent
        for _ in range(depth):
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.net = nn.Sequential(*layers, nn.Linear(width, state_width))

    def chancy(self, latent: int) -> "ResidualMLP":
        """The same dynamics, copied, with a latent variable beside the action, whose part is yet to be learned.

        Args:
            latent: its width Z; these dynamics have none.
        """
        own = ResidualMLP(**self.config | {"latent": latent})
        with torch.no_grad():
            own.net[0].weight[:, : -latent or None].copy_(self.net[0].weight)
            own.net[0].bias.copy_(self.net[0].bias)
        own.net[1:].load_state_dict(self.net[1:].state_dict())
        return own

    def forward(self, states: Tensor, actions: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """Teacher-forced, as `TemporalPredictor`: `(B, L, N, D)`, `(B, L, A)`, `(B, L, Z)` -> `(B, L, N, D)`."""
        rows = (None if one is None else one.flatten(0, 1) for one in (actions, z))
        return self.step(states.flatten(0, 1), *rows).unflatten(0, states.shape[:2])

    def step(self, state: Tensor, action: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """`(B, N, D)`, `(B, A)`, `(B, Z)` -> `(B, N, D)`; every token sees the same action."""
        given = [state]
        for name, one, width in (("actions", action, self.actions), ("latent variables", z, self.latent)):
            found = 0 if one is None else one.shape[-1]
            if found != width:
                raise UserError(f"this world model takes {name} of width {width}, got {found or 'none'}")
            if one is not None:
                given.append(one.to(state.dtype)[:, None].expand(-1, state.shape[1], -1))
        return state + self.net(torch.cat(given, dim=-1))

    def rollout(
        self, state: Tensor, plan: Tensor | None = None, z: Tensor | None = None, horizon: int | None = None
    ) -> Tensor:
        """`(B, N, D)`, `(B, L, A)`, `(B, L, Z)` -> the L states that follow, `(B, L, N, D)`.

        Args:
            state: where it begins.
            plan: actions of each step; None without.
            z: latent variables of each step; None without.
            horizon: steps, where neither says it.
        """
        known = next((one.shape[1] for one in (plan, z) if one is not None), horizon)
        if known is None or known < 1:
            raise UserError("a rollout needs a plan of a step or more, or a horizon")
        states = []
        for i in range(known):
            state = self.step(state, *(None if one is None else one[:, i] for one in (plan, z)))
            states.append(state)
        return torch.stack(states, dim=1)
