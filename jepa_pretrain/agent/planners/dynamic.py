"""Dynamic programming (Bellman 1957) over the states that discrete actions reach: exact, where they can be enumerated.

Costs are sums over steps, so the best way to a state at a step is all that has to be kept of it: a beam search that
merges equal states and throws nothing else away.
"""

from dataclasses import dataclass

from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.contracts import UserError


@dataclass(frozen=True)
class Dynamic(Beam):
    """The best plan there is; where states never meet again, it is exhaustive search.

    Args:
        width: states at a step at most; more are refused, as the plan would no longer be the best.
        merge: states are one when they agree to about this much.
        max_rollouts: continuations that are computed at once at most.
    """

    width: int = 4096

    def room(self, distinct: int) -> int:
        """All of them.

        Raises:
            UserError: there are more than `width`.
        """
        if distinct > self.width:
            raise UserError(
                f"Dynamic: {distinct} different states at one step, width is {self.width}; raise it, or take Beam"
            )
        return distinct
