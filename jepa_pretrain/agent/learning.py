"""Critics learn: plain loops over memory and trajectories, everything random drawn from a generator that is given."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.critic import EnergyAfter, StepsToGo
from jepa_pretrain.agent.memory import Memory
from jepa_pretrain.contracts import UserError
from jepa_pretrain.ema import EMA


def learn_energy(
    critic: EnergyAfter,
    memory: Memory,
    generator: torch.Generator,
    steps: int = 1000,
    batch: int = 256,
    rate: float = 1e-3,
) -> float:
    """Fit a critic to the energies in a memory.

    Args:
        critic: trained in place.
        memory: what happened.
        generator: draws the batches, on the CPU.
        steps: of AdamW.
        batch: moments per step.
        rate: learning rate, which falls to nought.

    Returns:
        The mean loss of the last tenth.
    """
    states, target = critic.targets(memory)
    critic.scale.copy_(torch.stack([target.mean(), target.std(unbiased=False).clamp_min(1e-6)]))

    def loss(chosen: Tensor) -> Tensor:
        return critic.loss(states[chosen], target[chosen])

    return descend(critic, len(states), loss, generator, steps, batch, rate)


def learn_steps(
    critic: StepsToGo,
    episodes: list[Tensor],
    generator: torch.Generator,
    steps: int = 2000,
    batch: int = 512,
    rate: float = 1e-3,
    expectile: float = 0.9,
    momentum: float = 0.98,
    goals: list[Tensor] | None = None,
    within: bool = False,
) -> float:
    """Steps-to-go by temporal differences on recorded states, without actions (as in IQL, arXiv 2110.06169).

    Half of the goals lie ahead in the same episode: the steps that it took bound what is needed. Half are any states.
    Finding a shorter way than expected weighs more than finding a longer one (`expectile`), so that wandering
    behaviour teaches the way of someone who does not wander.

    Args:
        critic: trained in place.
        episodes: states `(T, N, D)` at every model step.
        generator: draws the batches, on the CPU.
        steps: of AdamW.
        batch: pairs of state and goal per step.
        rate: learning rate, which falls to nought.
        expectile: weight of what is shorter than expected, in .5..1.
        momentum: of the copy that gives the targets.
        goals: what these states are like as goals, at rest; the states themselves where they do not tell how things
            move. A goal is reached by who comes past it.
        within: no goals of other episodes, which are of another layout.

    Returns:
        The mean loss of the last tenth.

    Raises:
        UserError: no episode of two states.
    """
    pairs = Pairs.of(episodes, goals)
    critic.standardise(pairs.states)
    slow, states = EMA(critic), pairs.states

    def loss(chosen: Tensor) -> Tensor:
        here, goal, known = pairs.draw(chosen, generator, within)
        bound = critic.discounted(known).to(states)  # (B,)
        with torch.no_grad():
            later = slow.module.between(states[here + 1], pairs.goals[goal])
            target = torch.where(goal == here + 1, 1.0, 1 + critic.discount * later).minimum(bound)
        error = target - critic.between(states[here], pairs.goals[goal])
        return (torch.where(error < 0, expectile, 1 - expectile) * error.square()).mean()

    def follow() -> None:
        slow.update(critic, momentum)

    return descend(critic, len(pairs.starts), loss, generator, steps, batch, rate, follow)


class Pairs(NamedTuple):
    """Recorded states, and pairs of a state and a goal among them."""

    states: Tensor  # (M, N, D), episode after episode
    goals: Tensor  # (M, N, D), the same as goals
    past: Tensor  # (M,) states before it in the same episode
    left: Tensor  # (M,) states that follow
    starts: Tensor  # (P,) those that something follows

    @classmethod
    def of(cls, episodes: list[Tensor], goals: list[Tensor] | None = None) -> "Pairs":
        """Of episodes `(T, N, D)`, as states and as goals; those of a single state are left out."""
        long = [one for one in episodes if len(one) > 1]
        wanted = long if goals is None else [one for one in goals if len(one) > 1]
        if not long:
            raise UserError("steps-to-go are learned from episodes of two states or more, found none")
        past = torch.cat([torch.arange(len(one)) for one in long])
        left = torch.cat([torch.arange(len(one) - 1, -1, -1) for one in long])
        return cls(torch.cat(long), torch.cat(wanted), past, left, left.nonzero()[:, 0])

    def draw(self, chosen: Tensor, generator: torch.Generator, within: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Goals for some starts: half ahead in the same episode, half anywhere.

        Args:
            chosen: `(B,)`, which starts.
            generator: on the CPU.
            within: anywhere in the same episode.

        Returns:
            Numbers of states and of goals, and the steps that are known to suffice, infinite where none are; `(B,)`.
        """
        here = self.starts[chosen]
        ahead = (torch.rand(len(here), generator=generator) * (self.left[here] + 1)).long()  # 0 is the state itself
        if within:
            length = self.past[here] + self.left[here] + 1
            anywhere = here - self.past[here] + (torch.rand(len(here), generator=generator) * length).long()
        else:
            anywhere = torch.randint(len(self.states), here.shape, generator=generator)
        hindsight = torch.arange(len(here)) < len(here) // 2
        goal = torch.where(hindsight, here + ahead, anywhere)
        far = goal - here
        inside = (far >= 0) & (far <= self.left[here])  # ahead in the same episode
        return here, goal, torch.where(inside, far.float(), torch.inf)


def descend(
    module: nn.Module,
    count: int,
    loss: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    steps: int,
    batch: int,
    rate: float,
    after: Callable[[], None] = lambda: None,
) -> float:
    """AdamW on random batches, with a learning rate that falls to nought as half a cosine.

    Args:
        module: trained in place; left in evaluation mode.
        count: samples there are.
        loss: of the samples whose indices `(batch,)` it is given.
        generator: draws the batches, on the CPU.
        steps: how many.
        batch: samples per step.
        rate: first learning rate.
        after: called after each step.

    Returns:
        The mean loss of the last tenth.

    Raises:
        UserError: a loss that is not finite.
    """
    module.train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-4)
    losses = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss(torch.randint(count, (batch,), generator=generator))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        after()
        losses.append(value.detach())
    module.eval()
    last = torch.stack(losses[-max(1, steps // 10) :]).mean().item()
    if not math.isfinite(last):
        raise UserError(f"{type(module).__name__} did not learn: its loss is not finite; try a smaller rate")
    return last
