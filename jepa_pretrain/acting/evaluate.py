"""`jepa-pretrain agent eval`: how often an agent reaches its goals, with intervals, floor and ceiling."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from jepa_pretrain.acting.episode import check_actions
from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.acting.search import OWN, Search, searching
from jepa_pretrain.agent import tworoom
from jepa_pretrain.agent.actor import Planning
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.behaviours import behaviour
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments, Seen
from jepa_pretrain.agent.searches import describe
from jepa_pretrain.agent.trials import Acting, Actor, Outcome, Pursuit, Trial, run
from jepa_pretrain.agent.worlds.fork import fallen
from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.interval import wilson
from jepa_pretrain.evals.result import check_out, write

FLOORS = ("random", "straight", "expert")
TRAPS = {"jepa_pretrain/Fork-v0": fallen}
BUDGET = {"offset": 50, "far": 100, "drawn": 100}


def evaluate(
    agent: str,
    env: str = tworoom.NAME,
    goals: Literal["offset", "far", "drawn"] | None = None,
    episodes: int = 200,
    search: Search = OWN,
    budget: int | None = None,
    variation: list[str] | None = None,
    parallel: int = 50,
    flops: bool = False,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Measure how often an agent reaches goals that it is shown as pictures.

    Args:
        agent: Folder of an agent, or of a world model, or random, straight or expert: the floor and the ceiling.
        env: Gymnasium id of an environment that can be put at its goal, such as swm/TwoRoom-v1 or the worlds of this
            package.
        goals: drawn - by the environment; in TwoRoom, offset - 25 steps ahead in an expert's episode
            (stable-worldmodel's protocol), the default there - or far, in the other room.
        episodes: Trials; starts that are solved already are not among them.
        search: How plans are searched for, in place of the agent's own way.
        budget: Steps that a trial may take; 100 by default, offset goals 50.
        variation: What varies beside positions, such as door.position.
        parallel: Trials at a time.
        flops: Count what deciding takes, perception included: products and convolutions, forwards and backwards.
        seed: Names the trials and what the planner draws.
        out: File, or folder, for the outcome as JSON.
    """
    check_out(out)
    goals = goals or ("offset" if env == tworoom.NAME else "drawn")
    if goals != "drawn" and env != tworoom.NAME:
        raise UserError(f"{goals} goals are known in {tworoom.NAME} only; take --goals drawn in {env}")
    budget = BUDGET[goals] if budget is None else budget
    mind = None if agent in FLOORS else searching(load_mind(agent, seed), search)
    environments = Environments(env, parallel, load_size(mind.model) if mind else 64)
    actor = pursuit(mind, seed) if mind else _floor(agent, environments, seed)
    if mind:
        check_actions(mind, environments)
    trials = _trials(environments, goals, episodes, seed, variation)
    actor = Counting(actor) if flops else actor
    trapped = Trapped(TRAPS[env]) if env in TRAPS else None
    outcome = run(environments, actor, trials, budget, trapped)
    environments.close()
    console = Console(highlight=False, soft_wrap=True)
    result = {"protocol": f"agent-{goals}", "encoder": agent, "env": env, "variation": variation or [], "seed": seed,
              "budget": budget} | (_told(mind) if mind else {}) | counted(trials, outcome)  # fmt: skip
    if trapped is not None:
        low, high = wilson(count := trapped.count(len(trials)), len(trials))
        result |= {"trapped": 100 * count / len(trials), "trapped_interval": [100 * low, 100 * high]}
    if isinstance(actor, Counting):
        result |= {"gflop_per_plan": actor.flops / max(outcome.decisions, 1) / 1e9,
                   "gflop_per_episode": actor.flops / len(trials) / 1e9}  # fmt: skip
    show(result, console)
    write(result, out, console)


def _trials(
    environments: Environments, goals: str, episodes: int, seed: int, variation: list[str] | None
) -> list[Trial]:
    if goals == "offset":
        return tworoom.offset_trials(environments, episodes, seed, variation)
    if goals == "far":
        return tworoom.far_trials(episodes, seed, variation)
    return drawn_trials(environments, episodes, seed, tworoom.options_of(variation))


def pursuit(mind: Agent, seed: int) -> Actor:
    """The agent after the goals of trials."""
    if mind.reactive and mind.policy:
        return Pursuit(mind.model, mind.policy, mind.task)
    return Pursuit(mind.model, Planning(mind.model, mind.cost, mind.planner, seed, mind.policy), mind.task)


def _floor(name: str, environments: Environments, seed: int) -> Actor:
    seeds = [seed + row for row in range(environments.count)]
    return Acting(behaviour(name, environments.name, environments.actions), seeds)


def _told(mind: Agent) -> dict[str, Any]:
    """What an outcome says of the agent."""
    task = mind.task
    plain = describe(mind.planner)[0]
    return {"planner": plain["class"], "settings": plain["args"], "reactive": mind.reactive, "horizon": task.horizon,
            "u": dict(task.u), "v": dict(task.v), "risk": task.risk}  # fmt: skip


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
    console.print(f"{steps}; {result['ms_per_action']:.3f} ms per action, {result['ms_per_plan']:.2f} ms per decision")
    if "trapped" in result:
        low, high = result["trapped_interval"]
        console.print(f"{result['trapped']:.1f} % fell into the trap ({low:.1f} to {high:.1f})")
    if "gflop_per_plan" in result:
        told = f"{result['gflop_per_plan']:.3f} GFLOP per decision, {result['gflop_per_episode']:.2f} per episode"
        console.print(told)
