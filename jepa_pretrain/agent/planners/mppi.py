"""Model predictive path integral control (Williams et al. 2017, arXiv 1509.01149), over elites as in TD-MPC."""

from dataclasses import dataclass

from torch import Tensor

from jepa_pretrain.agent.planners.sampling import Belief, Sampling


@dataclass(frozen=True)
class MPPI(Sampling):
    """Averages the elites by exp(-cost / temperature).

    Args:
        temperature: in deviations of the elites' costs, so that the scale of a cost does not matter.
    """

    temperature: float = 1.0

    def update(self, belief: Belief, candidates: Tensor, key: Tensor) -> Belief:
        """The weighted mean and deviation of the elites."""
        elites, keys = self.best_of(candidates, key)  # (B, K, L, A), (B, K)
        scale = self.temperature * keys.std(1, keepdim=True) + 1e-12
        weight = (-(keys - keys[:, :1]) / scale).softmax(1)[:, :, None, None]
        mean = (weight * elites).sum(1)
        variance = (weight * (elites - mean[:, None]).square()).sum(1)
        return Belief(mean, variance.sqrt())
