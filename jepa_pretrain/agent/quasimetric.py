"""Steps to a goal as a quasimetric between embeddings of states (QRL: Wang, Torralba, Isola and Zhang 2023,
arXiv 2304.01203).

Temporal differences hand an estimate on from step to step, and where the layout of the world is new in every episode
the errors that gather on the way are as large as what is to be told. Here nothing is handed on: states are pushed
apart as far as they go while no recorded step may be longer than one, so that what lies between two of them becomes
the shortest way. The triangle inequality holds by construction, and an embedding reads one state at a time, so that
few pairs have to be seen. It holds for worlds without chance: a lucky step counts as one that can be had.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_pretrain.agent.critic import ToGoal, mlp
from jepa_pretrain.agent.learning import Pairs, descend
from jepa_pretrain.contracts import UserError

SOFTNESS = 0.1  # beta of the softplus that stops pushing, as in the paper
TOLERANCE = 0.1  # root mean square by which recorded steps may be too long
DUAL_RATE = 1e-2  # of the multiplier's logarithm


class Quasimetric(ToGoal):
    """Model steps from a state to a goal: d(s, g) = |e(s) - e(g)| + mean_k max_j relu(f(g) - f(s))_kj.

    The first part is the same there and back; the second is not, for what cannot be undone (a metric residual network,
    Liu et al. 2022, arXiv 2208.08133). Both are nought at the goal and obey the triangle inequality.

    Args:
        width: D of a state.
        tokens: N of a state.
        size: numbers of e, and of f.
        components: groups of f; divides `size`.
        hidden: width of the hidden layers.

    Raises:
        UserError: sizes that do not fit.
    """

    def __init__(self, width: int, tokens: int = 1, size: int = 64, components: int = 8, hidden: int = 256) -> None:
        super().__init__(width * tokens)
        if components < 1 or size < 1 or size % components:
            raise UserError(f"{size} numbers cannot be shared out to {components} components")
        self.config: dict[str, Any] = dict(width=width, tokens=tokens, size=size, components=components, hidden=hidden)
        self.components = components
        self.net = mlp(width * tokens, hidden, 2 * size)

    def embed(self, states: Tensor) -> Tensor:
        """`(..., N, D)` -> `(..., 2 size)`."""
        return self.net((states.flatten(-2) - self.centre) / self.scale)

    def apart(self, here: Tensor, there: Tensor) -> Tensor:
        """Steps from one embedding to another, `(..., 2 size)` twice -> `(...,)`."""
        there_and_back, one_way = (there - here).chunk(2, dim=-1)
        directed = F.relu(one_way).unflatten(-1, (self.components, -1)).amax(-1).mean(-1)
        return (there_and_back.square().sum(-1) + 1e-12).sqrt() + directed

    def along(self, states: Tensor, goal: Tensor) -> Tensor:
        """States on the way to one goal each, `(B, L, N, D)`, `(B or 1, N, D)` -> `(B, L)`."""
        there = self.embed(goal)
        return torch.stack([self.apart(self.embed(one), there) for one in states.unbind(1)], dim=1)

    def steps(self, value: Tensor) -> Tensor:
        """Steps are what it says."""
        return value


def learn_quasimetric(
    critic: Quasimetric,
    episodes: list[Tensor],
    generator: torch.Generator,
    steps: int = 2000,
    batch: int = 512,
    rate: float = 1e-3,
    longest: float = 15.0,
    goals: list[Tensor] | None = None,
    within: bool = False,
) -> float:
    """Push states apart from goals while recorded steps stay no longer than one, by a Lagrange multiplier.

    Args:
        critic: trained in place.
        episodes: states `(T, N, D)` at every model step.
        generator: draws the batches, on the CPU.
        steps: of AdamW.
        batch: pairs of state and goal, and recorded steps, in each.
        rate: learning rate, which falls to nought.
        longest: steps, about the longest way; what is farther is hardly pushed.
        goals: what these states are like as goals, at rest; from each of them to its own goal it is nought. The states
            themselves where they do not tell how things move.
        within: no goals of other episodes, which are of another layout.

    Returns:
        The mean loss of the last tenth.

    Raises:
        UserError: no episode of two states.
    """
    pairs = Pairs.of(episodes, goals)
    critic.standardise(pairs.states)
    multiplier = torch.zeros((), device=pairs.states.device, requires_grad=True)  # its logarithm
    dual = torch.optim.Adam([multiplier], lr=DUAL_RATE)

    def loss(chosen: Tensor) -> Tensor:
        here, goal, _ = pairs.draw(chosen, generator, within)
        asked = [pairs.states[here], pairs.states[here + 1], pairs.goals[goal]]
        asked += [] if goals is None else [pairs.goals[here]]
        start, later, wanted, *own = critic.embed(torch.cat(asked)).chunk(len(asked))
        far = F.softplus(longest - critic.apart(start, wanted), beta=SOFTNESS).mean()
        too_long = F.relu(critic.apart(start, later) - 1).square().mean()
        too_long = too_long + sum(critic.apart(start, one).square().mean() for one in own)
        dual.zero_grad()
        (multiplier.exp() * (TOLERANCE**2 - too_long.detach())).backward()
        dual.step()
        return far + multiplier.detach().exp() * too_long

    return descend(critic, len(pairs.starts), loss, generator, steps, batch, rate)
