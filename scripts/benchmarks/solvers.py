"""Our planners beside stable-worldmodel's solvers: the same model and cost, samples x iterations x horizon, trials.

    python scripts/benchmarks/solvers.py AGENT [--env ID] [--episodes N] [--samples S] [--iterations I] [--horizon L]
        [--solvers cem,icem,mppi,gradient] [--cost critic|goal] [--rounds R] [--seed S] [--out F]

AGENT is the folder of `agent critic`. Success is counted on the same trials, plans made where a block of actions ends,
both sides started from what is left of the last plan. Time is that of one plan, for --batch environments together, the
sides in turn in one process: the median over the rounds of the ratio of processor times. Their solvers are timed as
they come (one environment after the other) and with all environments together, and ask the very cost that ours ask.
"""

import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jepa_pretrain.acting.episode import trials_of
from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.acting.outcomes import counted
from jepa_pretrain.agent import tworoom
from jepa_pretrain.agent.actor import Planning
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.planners.cem import CEM, ICEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.mppi import MPPI
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.sight import goal_state
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Pursuit, run

PARALLEL, BUDGET = 50, 100
Sizes = tuple[int, int]  # samples, iterations


class Costed:
    """A world model and a cost as stable-worldmodel's solvers ask for them.

    Args:
        mind: whose model and cost these are.
        task: weights; the goal comes with every question.
    """

    def __init__(self, mind: Agent, task: Task) -> None:
        self.mind, self.task = mind, task

    def get_cost(self, info_dict: dict[str, Tensor], action_candidates: Tensor) -> Tensor:
        """`state` and `goal` `(B, S, N, D)`, plans `(B, S, L, A)`, clipped as in the world -> costs `(B, S)`."""
        state, goal = (info_dict[name].flatten(0, 1) for name in ("state", "goal"))
        low, high = self.mind.model.action.low, self.mind.model.action.high
        plans, task = action_candidates.flatten(0, 1).clamp(low, high), replace(self.task, goal=goal)
        cost = self.mind.cost(self.mind.model.rollout(state, plans), plans, task)
        return cost.view(action_candidates.shape[:2])

    def criterion(self, info_dict: dict[str, Tensor], action_candidates: Tensor) -> Tensor:
        """Their protocol has both."""
        return self.get_cost(info_dict, action_candidates)


class Theirs:
    """One of their solvers as our trials ask who decides: plans, acts a block, plans again from what is left.

    Args:
        make: a fresh solver.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.begin(0)

    def begin(self, environments: int) -> None:
        """Forget all plans."""
        self.solver, self.last = self.make(), {}

    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        """`(B, N, D)` -> the first action of a plan `(B, A)`."""
        names = list(range(len(state))) if rows is None else rows.tolist()
        known = all(name in self.last for name in names)
        start = torch.stack([self.last[name] for name in names]) if known else None
        with contextlib.redirect_stdout(io.StringIO()):  # they print how long it took
            found = self.solver.solve({"state": state, "goal": task.goal.expand_as(state)}, start)["actions"]
        self.last |= dict(zip(names, found[:, 1:], strict=True))
        return found[:, 0]


def ours(name: str, sizes: Sizes) -> Planner:
    """Our planner of that name, its other settings as they come."""
    samples, iterations = sizes
    if name == "gradient":
        return Gradient(starts=samples, iterations=iterations)
    kind = {"cem": CEM, "icem": ICEM, "mppi": MPPI}[name]
    fewer = {"decay": 1.0} if name == "icem" else {}  # ours draws fewer plans every time, theirs does not
    return kind(samples=samples, iterations=iterations, elites=max(samples // 10, 2), **fewer)


def theirs(name: str, model: Costed, sizes: Sizes, mind: Agent, batch: int) -> Callable[[], Any]:
    """Makes their solver of that name, its other settings as they come; gradients by Adam at our rate."""
    from gymnasium.spaces import Box
    from stable_worldmodel.policy import PlanConfig
    from stable_worldmodel.solver import CEMSolver, GradientSolver, ICEMSolver, MPPISolver

    samples, iterations = sizes
    shared = {"n_steps": iterations, "num_samples": samples, "batch_size": batch}
    width = mind.model.action.width // mind.model.block
    low, high = (one[:width].expand(batch, -1).numpy() for one in (mind.model.action.low, mind.model.action.high))

    def make() -> Any:
        if name == "gradient":
            adam = {"optimizer_cls": torch.optim.Adam, "optimizer_kwargs": {"lr": Gradient.rate}}
            solver = GradientSolver(model, **shared, **adam)
        else:
            kind = {"cem": CEMSolver, "icem": ICEMSolver, "mppi": MPPISolver}[name]
            solver = kind(model, topk=max(samples // 10, 2), **shared)
        config = PlanConfig(model.task.horizon, 1, action_block=mind.model.block)
        solver.configure(action_space=Box(low, high, dtype=np.float32), n_envs=batch, config=config)
        return solver

    return make


def timed(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time of every side, in turn, and the median over rounds of its ratio to the first."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            began = time.process_time()
            side()
            if number:  # the first one warms up
                taken[name].append(1000 * (time.process_time() - began))
    first = next(iter(taken.values()))
    return {name: {"ms": statistics.median(found),
                   "ratio": statistics.median(a / b for a, b in zip(found, first, strict=True))}
            for name, found in taken.items()}  # fmt: skip


def speeds(
    name: str, mind: Agent, task: Task, sizes: Sizes, states: Tensor, rounds: int
) -> dict[str, dict[str, float]]:
    """Times per plan of one planner and its solver, on the same states."""
    batch = len(states)
    mine = Planning(mind.model, mind.cost, ours(name, sizes), warm=False)
    sides: dict[str, Callable[[], Any]] = {"ours": lambda: mine.act(states, task)}
    for told, size in (("theirs, one by one", 1), ("theirs, together", batch)):
        side = Theirs(theirs(name, Costed(mind, task), sizes, mind, size))
        sides[told] = lambda side=side: (side.begin(batch), side.act(states, task))
    found = timed(sides, rounds)
    return {told: {"ms": one["ms"] / batch, "ratio": one["ratio"]} for told, one in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent")
    parser.add_argument("--env", default=tworoom.NAME)
    for name, value in (("episodes", 200), ("samples", 300), ("iterations", 30), ("horizon", 5), ("rounds", 5),
                        ("batch", 10), ("seed", 0)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--solvers", default="cem,icem,mppi,gradient")
    parser.add_argument("--cost", choices=("critic", "goal"), default="critic")
    parser.add_argument("--out")
    asked = parser.parse_args()
    mind = load_mind(asked.agent, asked.seed)
    task = replace(mind.task, horizon=asked.horizon)
    if asked.cost == "goal":
        task = replace(task, u={"goal": 1.0}, v={})
    environments = Environments(asked.env, PARALLEL, load_size(mind.model))
    trials, rows = trials_of(environments, max(asked.episodes, asked.batch), asked.seed, None), []
    ends = [(one.seed, way) for one in trials[: asked.batch] for way in (one.start, one.goal)]
    seen = Environments(asked.env, len(ends), load_size(mind.model))
    seen.reset([seed for seed, _ in ends], [way for _, way in ends])
    states = goal_state(mind.model, seen.pictures())
    for name in asked.solvers.split(","):
        sizes = (1 if name == "gradient" else asked.samples, asked.iterations)
        one = speeds(name, mind, replace(task, goal=states[1::2]), sizes, states[0::2], asked.rounds)
        row: dict[str, Any] = {"planner": name, "sizes": [*sizes, asked.horizon], "speed": one}
        if asked.episodes:
            mine = Planning(mind.model, mind.cost, ours(name, sizes), asked.seed)
            their = Theirs(theirs(name, Costed(mind, task), sizes, mind, PARALLEL))
            for side, decides in (("ours", mine), ("theirs", their)):
                row[side] = counted(trials, run(environments, Pursuit(mind.model, decides, task), trials, BUDGET))
        rows.append(row)
        print(json.dumps(row), flush=True)
    show(rows, f"{asked.env}, {asked.episodes} trials, cost: {asked.cost}, seed {asked.seed}")
    if asked.out:
        Path(asked.out).write_text(json.dumps(rows, indent=2) + "\n")


def show(rows: list[dict[str, Any]], title: str) -> None:
    """A line for each planner and side."""
    table = Table("planner", "sizes", "side", "reached (95 %)", "ms per plan", "ratio", box=None, title=title)
    for row in rows:
        for side, speed in row["speed"].items():
            told, found = "", None if side.endswith("one by one") else row.get(side.split(",")[0])
            if found:
                all_ = found["success"]["all"]
                told = f"{all_['success']:.1f} ({all_['interval'][0]:.1f}-{all_['interval'][1]:.1f})"
            sizes = " x ".join(str(one) for one in row["sizes"])
            table.add_row(row["planner"], sizes, side, told, f"{speed['ms']:.1f}", f"{speed['ratio']:.2f}")
    Console(highlight=False, soft_wrap=True).print(table)


if __name__ == "__main__":
    main()
