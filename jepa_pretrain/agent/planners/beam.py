"""Beam search over discrete actions: all continuations of the best partial plans, one step after the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_pretrain.agent.planners.planner import Planner, best, better
from jepa_pretrain.agent.planners.problem import Plan, Problem, Scores
from jepa_pretrain.contracts import UserError


@dataclass(frozen=True)
class Beam(Planner):
    """Keeps the best partial plans; of those that lead to one state, only the best one.

    Args:
        width: partial plans kept for each state that is planned from.
        merge: states are one when they agree to about this much.
        max_rollouts: continuations that are computed at once at most.

    Raises:
        UserError: a width below 1.
    """

    width: int = 64
    merge: float = 1e-4
    max_rollouts: int = 16384

    def __post_init__(self) -> None:
        if self.width < 1 or self.merge <= 0:
            raise UserError(
                f"{type(self).__name__} needs a width and a merge above 0, found {self.width}, {self.merge}"
            )

    def search(self, problem: Problem, generator: torch.Generator, start: Tensor | None) -> Plan:
        choices, batch = problem.choices(), problem.batch
        states = problem.state[:, None]  # (B, W, N, D)
        picks = torch.zeros(batch, 1, 0, dtype=torch.long, device=states.device)  # (B, W, steps so far)
        so_far = Scores(states.new_zeros(batch, 1), states.new_zeros(batch, 1))
        for _ in range(problem.length):
            states, picks, so_far = self._deeper(problem, choices, states, picks, so_far)
        rows = torch.arange(batch, device=states.device).repeat_interleave(states.shape[1])
        after = problem.final(states.flatten(0, 1), rows).unflatten(0, (batch, -1))
        order = Scores(so_far.cost + after, so_far.violation).order()
        cost, violation = ((part.gather(1, order)) for part in (so_far.cost + after, so_far.violation))
        plans = choices[picks.gather(1, order[:, :, None].expand_as(picks))]  # (B, W, L, A)
        found = Plan(plans[:, 0], cost[:, 0], violation[:, 0], plans[:, :8])
        if start is None:
            return found
        given = problem.begin(start, otherwise=choices[0])[:, None]
        return better(found, best(given, problem.score(given)))._replace(candidates=found.candidates)

    def _deeper(
        self, problem: Problem, choices: Tensor, states: Tensor, picks: Tensor, so_far: Scores
    ) -> tuple[Tensor, Tensor, Scores]:
        """All continuations by one step, and of those the best."""
        batch, kept, n = *states.shape[:2], len(choices)
        rows = torch.arange(batch, device=states.device).repeat_interleave(kept * n)
        parents = states.repeat_interleave(n, dim=1)  # (B, W n, N, D)
        pick = torch.arange(n, device=states.device).repeat(batch, kept)  # (B, W n)
        after, charge = problem.advance(parents.flatten(0, 1), choices[pick.flatten()], rows)
        after = after.unflatten(0, (batch, kept * n))
        cost, violation = (
            old.repeat_interleave(n, dim=1) + new.unflatten(0, (batch, -1))
            for old, new in zip(so_far, charge, strict=True)
        )
        scores = self._merged(after, Scores(cost, violation))
        alive = int(scores.cost.isfinite().sum(1).max())
        chosen = scores.order()[:, : self.room(alive)]  # (B, W')
        grown = torch.cat([picks.repeat_interleave(n, dim=1), pick[:, :, None]], dim=2)
        after = after.gather(1, chosen[:, :, None, None].expand(-1, -1, *after.shape[2:]))
        grown = grown.gather(1, chosen[:, :, None].expand(-1, -1, grown.shape[2]))
        return after, grown, Scores(scores.cost.gather(1, chosen), scores.violation.gather(1, chosen))

    def _merged(self, states: Tensor, scores: Scores) -> Scores:
        """Infinite costs for whatever reaches a state that something better reaches too."""
        batch, count = scores.cost.shape
        rounded = (states.flatten(2) / self.merge).round()  # (B, S, N D)
        owner = torch.arange(batch, device=states.device).to(rounded)[:, None, None].expand(-1, count, 1)
        group = torch.cat([owner, rounded], 2).flatten(0, 1).unique(dim=0, return_inverse=True)[1]  # (B S,)
        rank = scores.order().argsort(1).flatten()
        first = torch.full_like(rank, count).scatter_reduce(0, group, rank, "amin")
        worse = (rank > first[group]).unflatten(0, (batch, count))
        return Scores(*(part.masked_fill(worse, torch.inf) for part in scores))

    def room(self, distinct: int) -> int:
        """How many partial plans to keep of so many that differ."""
        return min(self.width, distinct)
