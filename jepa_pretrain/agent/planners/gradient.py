"""Planning by gradient descent through the world model (LeCun 2022, section 3.1.2), from several starts at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_pretrain.agent.planners.planner import Planner, best, better
from jepa_pretrain.agent.planners.problem import Plan, Problem, Scores
from jepa_pretrain.contracts import UserError

EDGE = 0.999  # of the range: at the very bound the gradient through tanh is nought


@dataclass(frozen=True)
class Gradient(Planner):
    """Adam on plans that tanh keeps within the bounds; the best plan seen on any way is returned.

    Args:
        starts: plans that are improved side by side; the first is the one given, or no action at all.
        iterations: steps of Adam.
        rate: its learning rate, before tanh.
        spread: deviation of the other starts, before tanh.
        max_rollouts: plans whose gradients are computed at once at most.

    Raises:
        UserError: no start or no iteration.
    """

    starts: int = 8
    iterations: int = 20
    rate: float = 0.3
    spread: float = 0.5
    max_rollouts: int = 4096

    def __post_init__(self) -> None:
        if self.starts < 1 or self.iterations < 1:
            raise UserError(f"Gradient needs a start and an iteration, found {self.starts} and {self.iterations}")

    def search(self, problem: Problem, generator: torch.Generator, start: Tensor | None) -> Plan:
        low, high = problem.bounds()
        middle, half, found = (low + high) / 2, (high - low) / 2, None
        free = self._first(problem.begin(start, otherwise=middle), middle, half, generator)  # (B S, L, A), before tanh
        first, second = torch.zeros_like(free), torch.zeros_like(free)
        for step in range(1, self.iterations + 1):
            scores, slope = self._slopes(problem, free, middle, half)
            found = better(found, self._best(free, scores, middle, half))
            first, second = first.lerp(slope, 0.1), second.lerp(slope.square(), 0.001)  # Adam, without its five seconds
            free = free - self.rate * (first / (1 - 0.9**step)) / (
                (second / (1 - 0.999**step)).sqrt() + 1e-8
            )  # to import
        plans = (middle + half * free.tanh()).unflatten(0, (problem.batch, self.starts))
        return better(found, best(plans, problem.score(plans)))

    def _first(self, plan: Tensor, middle: Tensor, half: Tensor, generator: torch.Generator) -> Tensor:
        """Starts around a plan `(B, L, A)`, before tanh; the first of each state is the plan itself."""
        centre = ((plan - middle) / half).clamp(-EDGE, EDGE).atanh()
        shape = (plan.shape[0], self.starts, *plan.shape[1:])
        noise = torch.randn(shape, generator=generator, device=plan.device, dtype=plan.dtype)
        noise[:, 0] = 0
        return (centre[:, None] + self.spread * noise).flatten(0, 1).detach()

    def _slopes(self, problem: Problem, free: Tensor, middle: Tensor, half: Tensor) -> tuple[Scores, Tensor]:
        """Costs `(B S,)` and their gradients, a piece at a time."""
        rows = torch.arange(problem.batch, device=free.device).repeat_interleave(self.starts)
        scores, slopes = [], []
        for piece in problem.pieces(len(rows)):
            with torch.enable_grad():
                one = free[piece].clone().requires_grad_()
                found = problem.score_rows(middle + half * one.tanh(), rows[piece])
                slope = torch.autograd.grad(found.cost.sum(), one)[0]
            if not slope.isfinite().all():
                raise UserError("Gradient: the world model's gradient is not finite; take CEM, or a smaller rate")
            scores.append(Scores(found.cost.detach(), found.violation.detach()))
            slopes.append(slope)
        return Scores(*(torch.cat(one) for one in zip(*scores, strict=True))), torch.cat(slopes)

    def _best(self, free: Tensor, scores: Scores, middle: Tensor, half: Tensor) -> Plan:
        shape = (-1, self.starts)
        plans = (middle + half * free.tanh()).unflatten(0, shape)
        return best(plans, Scores(*(one.unflatten(0, shape) for one in scores)))
