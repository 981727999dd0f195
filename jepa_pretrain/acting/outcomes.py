"""What trials amount to: successes with intervals, what deciding took, who fell into a trap; and how it is told."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from jepa_pretrain.agent.adjusting import Adjusting
from jepa_pretrain.agent.configurator import MODES
from jepa_pretrain.agent.environments import Seen
from jepa_pretrain.agent.mixture import Mixture
from jepa_pretrain.agent.trials import Actor, Outcome, Pursuit, Trial
from jepa_pretrain.evals.interval import wilson


class Trapped:
    """Watches who falls into a trap.

    Args:
        fallen: The states of all environments `(B, S)` -> who is in it, `(B,)`.
    """

    def __init__(self, fallen: Callable[[np.ndarray], np.ndarray]) -> None:
        self.fallen = fallen
        self.rounds: list[np.ndarray] = []  # (B,) bool, for each time that all environments began

    def __call__(self, seen: Seen, began: bool) -> None:
        now = self.fallen(seen.state.double().numpy())
        if began:
            self.rounds.append(now)
        self.rounds[-1] |= now

    def count(self, trials: int) -> int:
        """Of the first so many; the last environments repeat a trial where there are too few."""
        return int(np.concatenate(self.rounds)[:trials].sum())


class Counting:
    """An actor, and what its deciding took.

    Args:
        actor: Who acts.
    """

    def __init__(self, actor: Actor) -> None:
        self.actor, self.flops = actor, 0

    def begin(self, goal: Tensor) -> None:
        self.actor.begin(goal)

    def act(self, seen: Seen, look: Callable[[], Tensor]) -> Tensor:
        with FlopCounterMode(display=False) as counter:
            action = self.actor.act(seen, look)
        self.flops += counter.get_total_flops()
        return action


def counted(trials: list[Trial], outcome: Outcome) -> dict[str, Any]:
    """Successes in percent with 95 % intervals, over all and by kind, and what deciding cost.

    Args:
        trials: What was tried.
        outcome: What became of it; trials whose environment threw are left out.
    """
    rows = {}
    for kind in ("all", *sorted({one.kind for one in trials})):
        mine = [
            w for w, f, t in zip(outcome.won, outcome.failed, trials, strict=True) if not f and kind in ("all", t.kind)
        ]
        if mine:
            low, high = wilson(sum(mine), len(mine))
            rows[kind] = {"episodes": len(mine), "won": sum(mine), "success": 100 * sum(mine) / len(mine),
                          "interval": [100 * low, 100 * high]}  # fmt: skip
    won_in = [s for s, w in zip(outcome.steps, outcome.won, strict=True) if w]
    return {
        "success": rows,
        "failed": sum(outcome.failed),
        "steps": sum(won_in) / len(won_in) if won_in else None,
        "ms_per_action": 1000 * outcome.thinking / max(outcome.actions, 1),
        "ms_per_plan": 1000 * outcome.thinking / max(outcome.decisions, 1),
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Prints an outcome as a table."""
    title = f"{result['encoder']} in {result['env']}, {result['protocol'].removeprefix('agent-')} goals, "
    table = Table("goals", "episodes", "reached", "95 % interval", box=None, title_justify="left",
                  title=title + f"{result['budget']} steps")  # fmt: skip
    for kind, row in result["success"].items():
        low, high = row["interval"]
        table.add_row(kind, str(row["episodes"]), f"{row['success']:.1f} %", f"{low:.1f} to {high:.1f}")
    console.print(table)
    if result["failed"]:
        console.print(f"{result['failed']} episodes were dropped: {result['env']} threw")
    steps = "none won" if result["steps"] is None else f"{result['steps']:.1f} steps when won"
    if "modes" in result:
        told = ", ".join(f"{name} {n}" for name, n in zip(MODES, result["modes"]["decisions"], strict=True))
        share = 100 * result["modes"]["thinking"]
        console.print(
            f"thought about {share:.0f} % of decisions ({told}); switched {result['modes']['switches']} times"
        )
    if "surprise" in result:
        told = result["surprise"]
        words = (
            f"surprised {told['surprises']} times in {told['blocks']} blocks of actions: {told['updates']} updates, "
        )
        again = f"dynamics recognised {told['recognised']} times, given up {told['given_up']} times"
        console.print(words + again)
    console.print(f"{steps}; {result['ms_per_action']:.3f} ms per action, {result['ms_per_plan']:.2f} ms per decision")
    if "trapped" in result:
        low, high = result["trapped_interval"]
        console.print(f"{result['trapped']:.1f} % fell into the trap ({low:.1f} to {high:.1f})")
    if "gflop_per_plan" in result:
        told = f"{result['gflop_per_plan']:.3f} GFLOP per decision, {result['gflop_per_episode']:.2f} per episode"
        console.print(told)


def spent(actor: Actor) -> dict[str, Any]:
    """How often an actor thought, and what it learned from surprise."""
    decides, told = actor.decides if isinstance(actor, Pursuit) else None, {}
    if isinstance(decides, Adjusting):
        told, decides = {"surprise": asdict(decides.told)}, decides.decides
    return told | ({"modes": decides.spent.plain()} if isinstance(decides, Mixture) else {})
