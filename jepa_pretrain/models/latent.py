"""Latent variables: what of the next state cannot be known from the present one (LeCun 2022, sections 4.3 to 4.6).

    E(x, y, z) = D(s_y, Pred(s_x, z)) + weight R(z, s_x)        F(x, y) = min over z of E(x, y, z)

The paper's four criteria: s_x and s_y carry much information (the anti-collapse term, not here), s_y is predicted well
from s_x and z, and z carries little: that is R, without which z would simply be a copy of s_y and every pair of
states would have a low energy. Here z is one vector for each transition; its regulariser may depend on s_x.

Three ways to get a z: amortised, q(z | s_x, s_y), in training; the arg-min of E, for the energy; drawn from the Gibbs
distribution of the regulariser, exp(-R), to predict.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError

Distance = Callable[[Tensor], Tensor]  # z (B, Z) -> how far the prediction with z is from the target, (B,)


def mlp(inputs: int, hidden: int, out: int) -> nn.Sequential:
    """One hidden layer; the normed input makes it indifferent to the scale of the states."""
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, out))


class Latent(nn.Module, ABC):
    """A latent variable with its regulariser. `...` are any leading dimensions, such as batch and moments.

    Args:
        state_width: width D of the states.
        width: width Z of the latent variable as the predictor sees it.
        weight: weight of the regulariser in the energy and in the loss; 0 shows the collapse that it prevents.
    """

    def __init__(self, state_width: int, width: int, weight: float) -> None:
        super().__init__()
        if width < 1 or weight < 0:
            raise UserError(f"a latent variable has a width of 1 or more and a weight of 0 or more: {width}, {weight}")
        self.state_width, self.width, self.weight = state_width, width, weight

    @abstractmethod
    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Amortised inference: states `(..., N, D)` before and after -> z `(..., Z)` and what it costs, `(...)`."""

    @abstractmethod
    def penalty(self, z: Tensor, before: Tensor) -> Tensor:
        """R(z, s_x): z `(..., Z)`, states `(..., N, D)` -> `(...)`."""

    @abstractmethod
    def draw(self, before: Tensor, chance: Tensor | None = None) -> Tensor:
        """One z for each state from the distribution proportional to exp(-R).

        Args:
            before: `(..., N, D)`.
            chance: `(..., Z)` uniform in (0, 1), of which z is then a function; drawn here if None.

        Returns:
            `(..., Z)`.
        """

    def infer(self, distance: Distance, before: Tensor, after: Tensor) -> Tensor:
        """The z that minimises distance + weight R, by gradient from the amortised one; never worse than that.

        Args:
            distance: distance of the prediction from the target as a function of z.
            before: `(B, N, D)`.
            after: `(B, N, D)`.

        Returns:
            `(B, Z)`.
        """
        with torch.no_grad():
            start = self.amortised(before, after)
        return descend(lambda z: distance(z) + self.weight * self.penalty(z, before), start)

    def amortised(self, before: Tensor, after: Tensor) -> Tensor:
        """The most likely z of the amortised inference, without noise."""
        training = self.training
        z = self.eval()(before, after)[0]
        self.train(training)
        return z

    @staticmethod
    def _pair(before: Tensor, after: Tensor) -> Tensor:
        """Both states pooled, side by side: (..., 2 D)."""
        return torch.cat([before.mean(-2), after.mean(-2)], dim=-1)


def descend(energy: Distance, start: Tensor, steps: int = 50, lr: float = 0.1) -> Tensor:
    """Adam on z alone, for every sample the best z it met: `(B, Z)` -> `(B, Z)`."""
    z = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=lr)
    best, lowest = start.detach().clone(), torch.full(start.shape[:1], math.inf, device=start.device)
    with torch.enable_grad():
        for step in range(steps + 1):
            value = energy(z)  # (B,)
            better = value.detach() < lowest
            best, lowest = torch.where(better[:, None], z.detach(), best), torch.where(better, value.detach(), lowest)
            if step < steps:
                (z.grad,) = torch.autograd.grad(value.sum(), z)
                optimizer.step()
    return best


class Discrete(Latent):
    """One of k values, as a one-hot vector; the gradient passes straight through the choice.

    The regulariser is -log p(z | s_x) with a learned p; in training its mean is the KL of q and p.

    Args:
        state_width: width D of the states.
        values: number of values k.
        weight: weight of the regulariser.
        hidden: hidden width of the networks of q and p.
    """

    def __init__(self, state_width: int, values: int = 8, weight: float = 0.1, hidden: int = 128) -> None:
        super().__init__(state_width, values, weight)
        self.config = dict(state_width=state_width, values=values, weight=weight, hidden=hidden)
        self.posterior = mlp(2 * state_width, hidden, values)
        self.prior = mlp(state_width, hidden, values)

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.posterior(self._pair(before, after)).log_softmax(-1)  # (..., k)
        kl = (logits.exp() * (logits - self._log_prior(before))).sum(-1)
        noise = -torch.empty_like(logits).exponential_().log() if self.training else 0.0  # Gumbel's: a draw from q
        hard = self._one_hot((logits + noise).argmax(-1))
        return hard + logits.exp() - logits.exp().detach(), kl

    def penalty(self, z: Tensor, before: Tensor) -> Tensor:
        return -(z * self._log_prior(before)).sum(-1)

    def draw(self, before: Tensor, chance: Tensor | None = None) -> Tensor:
        log_prior = self._log_prior(before)
        wait = torch.empty_like(log_prior).exponential_() if chance is None else -chance.log()
        return self._one_hot((log_prior - wait.log()).argmax(-1))

    @torch.no_grad()
    def infer(self, distance: Distance, before: Tensor, after: Tensor) -> Tensor:
        """By enumeration: exact."""
        values = torch.eye(self.width, device=before.device).unsqueeze(1).expand(-1, len(before), -1)  # (k, B, k)
        energies = torch.stack([distance(z) + self.weight * self.penalty(z, before) for z in values])  # (k, B)
        return self._one_hot(energies.argmin(0))

    def _log_prior(self, before: Tensor) -> Tensor:
        return self.prior(before.mean(-2)).log_softmax(-1)

    def _one_hot(self, index: Tensor) -> Tensor:
        return F.one_hot(index, self.width).float()


class Gaussian(Latent):
    """A vector whose KL to a learned normal distribution, given the present state, is what it costs.

    The regulariser of a given z is half its squared distance from the prior's mean, in deviations.

    Args:
        state_width: width D of the states.
        width: width Z of the latent variable.
        weight: weight of the regulariser.
        hidden: hidden width of the networks of q and p.
    """

    def __init__(self, state_width: int, width: int = 8, weight: float = 0.1, hidden: int = 128) -> None:
        super().__init__(state_width, width, weight)
        self.config = dict(state_width=state_width, width=width, weight=weight, hidden=hidden)
        self.posterior = mlp(2 * state_width, hidden, 2 * width)
        self.prior = mlp(state_width, hidden, 2 * width)

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self._normal(self.posterior, self._pair(before, after))
        prior_mean, prior_log_std = self._normal(self.prior, before.mean(-2))
        ratio = (2 * (log_std - prior_log_std)).exp()
        shift = ((mean - prior_mean) / prior_log_std.exp()).square()
        kl = 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)
        return (mean + log_std.exp() * torch.randn_like(mean) if self.training else mean), kl

    def penalty(self, z: Tensor, before: Tensor) -> Tensor:
        mean, log_std = self._normal(self.prior, before.mean(-2))
        return 0.5 * ((z - mean) / log_std.exp()).square().sum(-1)

    def draw(self, before: Tensor, chance: Tensor | None = None) -> Tensor:
        mean, log_std = self._normal(self.prior, before.mean(-2))
        noise = torch.randn_like(mean) if chance is None else torch.special.ndtri(chance)
        return mean + log_std.exp() * noise

    @staticmethod
    def _normal(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation, (..., Z) each; the deviation stays between e^-4 and e^4."""
        mean, raw = network(x).chunk(2, dim=-1)
        return mean, 4 * torch.tanh(raw / 4)


class Sparse(Latent):
    """A vector that is mostly zero: its absolute values are summed (the prior is Laplace's, of scale 1).

    Noise is added in training, else z could carry everything in ever smaller numbers that cost nothing.

    Args:
        state_width: width D of the states.
        width: width Z of the latent variable.
        weight: weight of the regulariser.
        noise: deviation of the noise.
        hidden: hidden width of the network of q.
    """

    def __init__(
        self, state_width: int, width: int = 16, weight: float = 0.1, noise: float = 0.3, hidden: int = 128
    ) -> None:
        super().__init__(state_width, width, weight)
        self.config = dict(state_width=state_width, width=width, weight=weight, noise=noise, hidden=hidden)
        self.noise = noise
        self.posterior = mlp(2 * state_width, hidden, width)

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        z = self.posterior(self._pair(before, after))
        cost = self.penalty(z, before)
        return (z + self.noise * torch.randn_like(z) if self.training else z), cost

    def penalty(self, z: Tensor, before: Tensor) -> Tensor:
        return z.abs().sum(-1)

    def draw(self, before: Tensor, chance: Tensor | None = None) -> Tensor:
        if chance is None:
            chance = torch.rand(*before.shape[:-2], self.width, device=before.device)
        tail = torch.minimum(chance, 1 - chance).clamp_min(torch.finfo(chance.dtype).tiny)
        return (chance - 0.5).sign() * -(2 * tail).log()
