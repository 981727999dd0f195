"""What the parts of an agent are good for, on the same trials: critic, distilled policy, guardrail.

    python scripts/benchmarks/agent.py WORLD AGENT DATA [--policy AGENT] [--env ID] [--episodes N] [--seed S] [--out F]

WORLD is the folder of `agent train`, AGENT that of `agent critic`, --policy that of `agent distill` (acting alone),
DATA the recordings, from which the guardrail learns to read where the agent is. Prints a table of success with 95 %
intervals and ms per action, and, for the guardrail, in how many episodes the true place was inside the forbidden disc.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from jepa_pretrain.acting.evaluate import pursuit
from jepa_pretrain.acting.guard import keep_out, place_reader
from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.acting.outcomes import counted
from jepa_pretrain.agent import tworoom
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.behaviours import behaviour
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments, Seen
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.trials import Acting, Actor, Trial, run
from jepa_pretrain.agent.world_model import Continuous
from jepa_pretrain.data.trajectories import read_episodes

PARALLEL, BUDGET = 50, 100
# a disc in the middle of a room, and where starts and goals on either side of it lie: (low, high) of x and y
DISCS = {
    "jepa_pretrain/Rooms-v0": {"centre": (0.16, 0.24), "radius": 0.06, "margin": 0.06,
                               "from": ((0.05, 0.2), (0.05, 0.08)), "to": ((0.05, 0.2), (0.39, 0.42))},
    tworoom.NAME: {"centre": (25.0, 112.0), "radius": 20.0, "margin": 26.0,
                   "from": ((22.0, 40.0), (40.0, 60.0)), "to": ((22.0, 40.0), (165.0, 185.0))},
}  # fmt: skip


class Inside:
    """In which of the trials the agent was ever inside a disc.

    Args:
        disc: its centre and radius.
        trials: how many, which run `PARALLEL` at a time.
    """

    def __init__(self, disc: dict[str, Any], trials: int) -> None:
        self.centre, self.radius = torch.tensor(disc["centre"]), disc["radius"]
        self.found = torch.zeros(trials, dtype=torch.bool)
        self.deepest = 0.0
        self.first = -PARALLEL

    def __call__(self, seen: Seen, begins: bool) -> None:
        self.first += PARALLEL * begins
        depth = self.radius - (seen.state[:, :2] - self.centre).norm(dim=1)
        part = self.found[self.first : self.first + PARALLEL]
        depth = depth[: len(part)]
        part |= depth > 0
        self.deepest = max(self.deepest, float(depth.max()))


def around(disc: dict[str, Any], count: int, seed: int) -> list[Trial]:
    """Trials whose straight way leads through a disc, or near it."""
    rng, trials = np.random.default_rng([seed, 6]), []
    for _ in range(count):
        start, goal = (np.array([rng.uniform(*axis) for axis in disc[end]], np.float32) for end in ("from", "to"))
        if rng.random() < 0.5:
            start, goal = goal, start
        told = [{"state": place, "target_state": goal} for place in (start, goal)]
        trials.append(Trial(int(rng.integers(2**31)), told[0], told[1], "around"))
    return trials


class Lines:
    """Rows as they are measured."""

    def __init__(self, environments: Environments, seed: int) -> None:
        self.environments, self.seed = environments, seed
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, actor: Actor, trials: list[Trial], disc: dict[str, Any] | None = None) -> None:
        """Measure one line."""
        inside = None if disc is None else Inside(disc, len(trials))
        outcome = run(self.environments, actor, trials, BUDGET, inside)
        row: dict[str, Any] = {"who": name} | counted(trials, outcome)
        if inside is not None:
            row |= {"violated": int(inside.found.sum()), "deepest": round(inside.deepest, 4)}
        self.rows.append(row)
        print(json.dumps({key: row[key] for key in row if key != "success"} | row["success"]["all"]), flush=True)

    def show(self, title: str) -> Table:
        """All lines."""
        table = Table("who acts", "reached (95 %)", "steps when won", "ms per action", "inside", box=None, title=title)
        for row in self.rows:
            all_, low, high = row["success"]["all"]["success"], *row["success"]["all"]["interval"]
            inside = f"{row['violated']} of {row['success']['all']['episodes']}" if "violated" in row else ""
            steps = "" if row["steps"] is None else f"{row['steps']:.1f}"
            cells = (f"{all_:.1f} ({low:.1f}-{high:.1f})", steps, f"{row['ms_per_action']:.3f}", inside)
            table.add_row(row["who"], *cells)
        return table


def latency(environments: Environments, mind: Agent, seed: int, rounds: int = 10) -> tuple[float, float]:
    """Milliseconds of processor time that one decision for all environments takes the policy, and its planner.

    Pictures are encoded; the sides take turns, the medians count.
    """
    environments.reset([seed + row for row in range(environments.count)])
    pictures, sides = environments.pictures(), [replace(mind, reactive=one, seed=seed) for one in (True, False)]
    times = torch.zeros(rounds + 1, len(sides))
    for turn in range(rounds + 1):
        for number, side in enumerate(sides):
            side.pursue(pictures.flip(0))
            began = time.process_time()
            side.act(pictures)
            times[turn, number] = 1000 * (time.process_time() - began)
    policy, planner = times[1:].median(dim=0).values.tolist()  # the first turn warms up
    return policy, planner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("world", "agent", "data"):
        parser.add_argument(name)
    parser.add_argument("--policy")
    parser.add_argument("--env", default=tworoom.NAME)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", default="floor,critic,policy,guardrail")
    parser.add_argument("--out")
    asked = parser.parse_args()
    bare, mind = load_mind(asked.world, asked.seed), load_mind(asked.agent, asked.seed)
    environments = Environments(asked.env, PARALLEL, load_size(mind.model))
    rows, parts = Lines(environments, asked.seed), asked.parts.split(",")
    far = asked.env == tworoom.NAME
    trials = (
        tworoom.far_trials(asked.episodes, asked.seed, None)
        if far
        else drawn_trials(environments, asked.episodes, asked.seed)
    )
    if "floor" in parts:
        for name in ("random", "expert"):
            seeds = list(range(PARALLEL))
            actor = Acting(behaviour(name, asked.env, environments.actions), seeds)
            rows.add(name, actor, trials)
    if "critic" in parts:
        for horizon in (8, 4, 2):
            for name, one in (("distance alone", bare), ("critic", mind)):
                short = replace(one, task=replace(one.task, horizon=horizon))
                rows.add(f"{name}, {horizon} blocks ahead", pursuit(short, asked.seed), trials)
    if "policy" in parts and asked.policy:
        policy = load_mind(asked.policy, asked.seed)
        rows.add("distilled policy", pursuit(policy, asked.seed), trials)
        rows.add("planner started by the policy", pursuit(replace(policy, reactive=False), asked.seed), trials)
    if "latency" in parts and asked.policy:
        policy, planner = latency(environments, load_mind(asked.policy, asked.seed), asked.seed)
        print(
            f"a decision for {PARALLEL}: policy {policy:.2f} ms, planner {planner:.1f} ms, ratio {planner / policy:.1f}"
        )
    if "guardrail" in parts and isinstance(mind.model.action, Continuous):
        disc = DISCS[asked.env]
        past = around(disc, asked.episodes, asked.seed)
        reader, off = place_reader(mind, read_episodes(asked.data, 8000))
        print(f"place read from states: {off.mean():.4g} off, 99 % within {off.quantile(0.99):.4g}")
        rail = keep_out(reader, disc["centre"], disc["radius"] + disc["margin"])
        several = replace(mind, planner=Gradient(starts=4))
        guarded = replace(several, task=replace(several.task, guardrails=(rail,)))
        rows.add("past a disc, no guardrail", pursuit(several, asked.seed), past, disc)
        rows.add("past a disc, hard guardrail", pursuit(guarded, asked.seed), past, disc)
    environments.close()
    Console(highlight=False, soft_wrap=True).print(
        rows.show(f"{asked.env}, {asked.episodes} trials, seed {asked.seed}")
    )
    if asked.out:
        Path(asked.out).parent.mkdir(parents=True, exist_ok=True)
        Path(asked.out).write_text(json.dumps(rows.rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
