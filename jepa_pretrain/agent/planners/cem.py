"""The cross-entropy method (Rubinstein 1997) and its thriftier kin iCEM (Pinneri et al. 2020, arXiv 2008.06389)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_pretrain.agent.planners.sampling import Belief, Sampling


@dataclass(frozen=True)
class CEM(Sampling):
    """Mean and deviation of the elites.

    Args:
        momentum: share of the old mean and deviation that stays.
    """

    momentum: float = 0.0

    def update(self, belief: Belief, candidates: Tensor, key: Tensor) -> Belief:
        """Fit a normal distribution to the elites."""
        elites, _ = self.best_of(candidates, key)
        mean, std = elites.mean(1), elites.std(1, unbiased=False)
        return Belief(mean.lerp(belief.mean, self.momentum), std.lerp(belief.std, self.momentum))


@dataclass(frozen=True)
class ICEM(CEM):
    """CEM with noise that is correlated in time, fewer samples each time, and elites that are tried again.

    Args:
        momentum: share of the old mean and deviation that stays.
        colour: exponent of the noise's spectrum: 0 is white, larger is smoother in time.
        decay: each iteration draws this factor fewer plans.
        keep: share of the elites that the next iteration tries again.
    """

    momentum: float = 0.1
    colour: float = 2.0
    decay: float = 1.25
    keep: float = 0.3

    def count(self, iteration: int) -> int:
        """`samples / decay^iteration`, never below twice the elites."""
        return max(round(self.samples * self.decay**-iteration), min(2 * self.elites, self.samples))

    def noise(self, mean: Tensor, count: int, generator: torch.Generator, block: int) -> Tensor:
        """Noise whose power falls with frequency as f^-colour, scaled back to deviation 1.

        Time is the environment's: noise that is white within the blocks would hardly lead anywhere.
        """
        white = super().noise(mean, count, generator, block)
        white = white.unflatten(3, (block, -1)).flatten(2, 3)  # (B, count, L block, a)
        length = white.shape[2]
        if length == 1:
            return white
        frequency = torch.fft.rfftfreq(length, device=mean.device, dtype=mean.dtype).clamp_min(1 / length)
        scale = frequency ** (-self.colour / 2)  # (length // 2 + 1,)
        twice = torch.full_like(scale, 2.0)  # all but the first, and the last of an even length, stand for two
        twice[0] = 1.0
        twice[-1] = 1.0 if length % 2 == 0 else 2.0
        scale = scale / ((scale.square() * twice).sum() / length).sqrt()
        coloured = torch.fft.irfft(torch.fft.rfft(white, dim=2) * scale[:, None], n=length, dim=2)
        return coloured.unflatten(2, (-1, block)).flatten(3)

    def update(self, belief: Belief, candidates: Tensor, key: Tensor) -> Belief:
        """As CEM; the best elites are kept."""
        elites, _ = self.best_of(candidates, key)
        return super().update(belief, candidates, key)._replace(kept=elites[:, : max(1, int(self.keep * self.elites))])
