"""The one loop of the sampling planners: draw plans around a mean, score them, move the mean, keep the best ever seen.

The best plan *seen* is returned rather than the last mean: it was scored, so it is known to keep the guardrails.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.agent.planners.planner import Planner, best, better
from jepa_pretrain.agent.planners.problem import Plan, Problem
from jepa_pretrain.contracts import UserError


class Belief(NamedTuple):
    """Where good plans are looked for."""

    mean: Tensor  # (B, L, A)
    std: Tensor  # (B, L, A)
    kept: Tensor | None = None  # (B, K, L, A) plans to try again


@dataclass(frozen=True)
class Sampling(Planner):
    """Settings that CEM, iCEM and MPPI share; each is an update rule of this loop.

    Args:
        samples: plans drawn in each iteration.
        iterations: how often.
        elites: best plans that an update looks at.
        spread: first deviation, as a share of half the range of an action.
        least: the deviation never falls below this share of half the range.
        max_rollouts: plans that are rolled out at once at most.

    Raises:
        UserError: settings that contradict each other.
    """

    samples: int = 64
    iterations: int = 4
    elites: int = 8
    spread: float = 0.5
    least: float = 0.02
    max_rollouts: int = 16384

    def __post_init__(self) -> None:
        if not 2 <= self.elites <= self.samples or self.iterations < 1:
            raise UserError(
                f"{type(self).__name__} needs 2 <= elites <= samples and 1 <= iterations, "
                f"found {self.elites} elites, {self.samples} samples, {self.iterations} iterations"
            )

    def search(self, problem: Problem, generator: torch.Generator, start: Tensor | None) -> Plan:
        low, high = problem.bounds()
        half, found = (high - low) / 2, None
        mean = problem.begin(start, otherwise=(low + high) / 2).clamp(low, high)
        belief = Belief(mean, (half * self.spread).expand_as(mean))
        for iteration in range(self.iterations):
            drawn = self._candidates(belief, iteration, generator, problem.model.block)
            candidates = drawn.clamp(low, high)  # (B, S, L, A)
            scores = problem.score(candidates)
            found = better(found, best(candidates, scores))
            belief = self.update(belief, candidates, scores.key())
            belief = belief._replace(std=belief.std.clamp_min(half * self.least))
        last = belief.mean[:, None]
        return better(found, best(last, problem.score(last))._replace(candidates=found.candidates))

    def _candidates(self, belief: Belief, iteration: int, generator: torch.Generator, block: int) -> Tensor:
        """The mean itself, what is kept, and plans drawn around it."""
        known = belief.mean[:, None] if belief.kept is None else torch.cat([belief.mean[:, None], belief.kept], 1)
        noise = self.noise(belief.mean, self.count(iteration) - 1, generator, block)  # (B, S - 1, L, A)
        return torch.cat([known, belief.mean[:, None] + belief.std[:, None] * noise], dim=1)

    def count(self, iteration: int) -> int:
        """Plans to draw in this iteration."""
        return self.samples

    def noise(self, mean: Tensor, count: int, generator: torch.Generator, block: int) -> Tensor:
        """Noise of deviation 1 for a mean `(B, L, A)`, the actions of a block joined: `(B, count, L, A)`."""
        shape = (mean.shape[0], count, *mean.shape[1:])
        return torch.randn(shape, generator=generator, device=mean.device, dtype=mean.dtype)

    @abstractmethod
    def update(self, belief: Belief, candidates: Tensor, key: Tensor) -> Belief:
        """Where to look next.

        Args:
            belief: where these candidates were looked for.
            candidates: `(B, S, L, A)`.
            key: `(B, S)`, lower is better.
        """

    def best_of(self, candidates: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The elites `(B, K, L, A)`, best first, and their keys `(B, K)`."""
        keys, index = key.topk(self.elites, largest=False)
        return candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:])), keys
