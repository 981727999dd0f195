"""Monte Carlo tree search (Kocsis and Szepesvari 2006, UCT) over discrete actions, one tree for each environment.

The world model is deterministic, so a node needs no state: every simulation is a whole plan, a path down the tree and
random choices after it, and all environments roll theirs out together. The best plan ever seen is returned.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_pretrain.agent.planners.planner import Planner, best, better
from jepa_pretrain.agent.planners.problem import Plan, Problem
from jepa_pretrain.contracts import UserError


class Tree:
    """Statistics of one tree for each environment; node 0 is the root, each simulation adds one node.

    Args:
        batch: trees B.
        nodes: of each.
        n: choices.
        device: where.
    """

    def __init__(self, batch: int, nodes: int, n: int, device: torch.device) -> None:
        self.rows = torch.arange(batch, device=device)
        self.child = torch.full((batch, nodes, n), -1, dtype=torch.long, device=device)
        self.visits = torch.zeros(batch, nodes, n, device=device)
        self.total = torch.zeros(batch, nodes, n, device=device)  # of the costs backed up

    def pick(self, node: Tensor, low: Tensor, high: Tensor, explore: float, generator: torch.Generator) -> Tensor:
        """The most promising choice at a node of each tree; those never tried come first, in random order.

        Args:
            node: `(B,)`.
            low: cheapest plan so far, `(B,)`.
            high: dearest, `(B,)`.
            explore: weight of the bonus for what was tried seldom.
            generator: breaks ties.
        """
        visits = self.visits[self.rows, node]  # (B, n)
        mean = (self.total[self.rows, node] / visits.clamp_min(1) - low[:, None]) / (high - low + 1e-12)[:, None]
        bonus = explore * (visits.sum(1, keepdim=True).clamp_min(1).log() / visits.clamp_min(1)).sqrt()
        chance = torch.rand(visits.shape, generator=generator, device=visits.device)
        return torch.where(visits == 0, -1e6 - chance, mean - bonus).argmin(1)


@dataclass(frozen=True)
class MCTS(Planner):
    """Settings of the search.

    Args:
        simulations: paths down each tree.
        playouts: random continuations of each path; the cheapest is what it is worth.
        explore: weight of the bonus for what was tried seldom, for costs scaled to 0..1.
        max_rollouts: plans that are rolled out at once at most.

    Raises:
        UserError: no simulation or no playout.
    """

    simulations: int = 128
    playouts: int = 4
    explore: float = 0.25
    max_rollouts: int = 16384

    def __post_init__(self) -> None:
        if self.simulations < 1 or self.playouts < 1:
            raise UserError(f"MCTS needs simulations and playouts, found {self.simulations} and {self.playouts}")

    def search(self, problem: Problem, generator: torch.Generator, start: Tensor | None) -> Plan:
        choices, device, found = problem.choices(), problem.state.device, None
        if start is not None:
            given = problem.begin(start, otherwise=choices[0])[:, None]
            found = best(given, problem.score(given))
        tree = Tree(problem.batch, self.simulations + 1, len(choices), device)
        low, high = (problem.state.new_full((problem.batch,), bound) for bound in (torch.inf, -torch.inf))
        for number in range(1, self.simulations + 1):
            path, picks = self._descend(tree, number, problem.length, low, high, generator)  # (B, L) each
            shape = (problem.batch, self.playouts, problem.length)
            plans = torch.randint(len(choices), shape, generator=generator, device=device)
            plans = choices[torch.where(path[:, None] >= 0, picks[:, None], plans)]  # (B, P, L, A)
            scores = problem.score(plans)
            found = better(found, best(plans, scores))
            value = scores.key().amin(1)  # one that breaks a hard guardrail is worth less than the worst that does not
            low, high = low.minimum(value), high.maximum(value)
            self._back_up(tree, path, picks, value)
        return found

    def _descend(
        self, tree: Tree, number: int, length: int, low: Tensor, high: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """From the root to one new node: the nodes passed, -1 below the new one, and what was picked at each."""
        rows = tree.rows
        node, inside = torch.zeros_like(rows), torch.ones_like(rows, dtype=torch.bool)
        path = rows.new_full((len(rows), length), -1)
        picks = torch.zeros_like(path)
        for depth in range(length):
            pick = tree.pick(node, low, high, self.explore, generator)
            path[:, depth], picks[:, depth] = torch.where(inside, node, -1), pick
            below = tree.child[rows, node, pick]
            fresh = inside & (below < 0)
            tree.child[rows[fresh], node[fresh], pick[fresh]] = number
            inside = inside & ~fresh
            if not inside.any():
                break
            node = torch.where(inside, below, node)
        return path, picks

    def _back_up(self, tree: Tree, path: Tensor, picks: Tensor, value: Tensor) -> None:
        """Add what a path was worth to every node on it."""
        row, depth = (path >= 0).nonzero(as_tuple=True)
        where = (row, path[row, depth], picks[row, depth])
        tree.visits[where] += 1
        tree.total[where] += value[row].to(tree.total.dtype)
