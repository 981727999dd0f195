"""Reacting, thinking and learning from surprise, on the same trials.

    python scripts/benchmarks/modes.py modes AGENT [--episodes N] [--seed S] [--alone N] [--out F]
    python scripts/benchmarks/modes.py surprise AGENT --data DATA [--episodes N] [--seed S] [--out F]
    python scripts/benchmarks/modes.py mixture AGENT --data DATA [--episodes N] [--seed S] [--out F]

AGENT is a folder of `agent configure`. `modes`: always react, always think little, always think much (the agent's own
planner), the mixture by rules and the learned one; then the same with one environment at a time (--alone trials), where
a decision takes what it takes an agent by itself. `surprise`: the world as it was, with stronger and with mirrored
motors, and as it was again; with and without learning from surprise, thinking little. `mixture`: the mixture by rules
before, in and after the mirrored world, learning from surprise.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from jepa_pretrain.acting.adapt import adjusting
from jepa_pretrain.acting.evaluate import always, moved, pursuit
from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.acting.outcomes import counted, spent
from jepa_pretrain.agent.adjusting import Adjusting
from jepa_pretrain.agent.adjustments import Settings
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.configurator import Rules, Spent
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.trials import Pursuit, Trial, run

ENV, PARALLEL, BUDGET = "jepa_pretrain/Rooms-v0", 50, 100
MOTORS = {"stronger motors": [2.0, 2.0], "mirrored controls": [-1.0, -1.0]}


class Lines:
    """Lines of a result, printed as they are measured."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, actor: Pursuit, environments: Environments, trials: list[Trial]) -> None:
        """Measure one."""
        outcome = run(environments, actor, trials, BUDGET)
        found = counted(trials, outcome)
        row: dict[str, Any] = {"who": name, "seed": self.seed, **found["success"]["all"]}
        row |= {key: found[key] for key in ("steps", "ms_per_action")} | spent(actor)
        self.rows.append(row)
        low, high = row["interval"]
        told = f"{name:42s} {row['success']:5.1f} ({low:.1f}-{high:.1f}) {row['ms_per_action']:7.3f} ms"
        told += (
            f"  thought {100 * row['modes']['thinking']:.0f} % {row['modes']['decisions']}" if "modes" in row else ""
        )
        if "surprise" in row:
            told += "  {surprises} surprises, {updates} updates, {recognised} recognised, {given_up} given up".format(
                **row["surprise"]
            )
        print(told, flush=True)


def modes(mind: Agent, lines: Lines, episodes: int, parallel: int, words: str) -> None:
    """All ways to act on the same trials."""
    environments = Environments(ENV, parallel, load_size(mind.model))
    trials = drawn_trials(environments, episodes, lines.seed)
    by_hand = replace(mind, configurator=replace(mind.configurator, chooser=Rules()))
    for name, one in (
        ("react", always(mind, "never")),
        ("think little", always(mind, "little")),
        ("think much", always(mind, "much")),
        ("mixture, rules", by_hand),
        ("mixture, learned", mind),
    ):
        lines.add(name + words, pursuit(one, lines.seed), environments, trials)
    environments.close()


def surprise(agent: str, data: str, lines: Lines, episodes: int, settings: Settings) -> None:
    """Before, at and after each change, and back again; thinking little, with and without learning."""
    mind = load_mind(agent, lines.seed)
    environments = Environments(ENV, PARALLEL, load_size(mind.model))
    trials = drawn_trials(environments, episodes, lines.seed)
    fresh = drawn_trials(environments, PARALLEL, lines.seed + 1000)
    lines.add("before, without learning", pursuit(always(mind, "little"), lines.seed), environments, trials)
    for name, motor in MOTORS.items():
        changed, first = ([moved(one, ENV, motor) for one in some] for some in (trials, fresh))
        lines.add(f"{name}, without learning", pursuit(always(mind, "little"), lines.seed), environments, changed)
        own = always(load_mind(agent, lines.seed), "little")
        actor = pursuit(own, lines.seed)
        actor.decides = adjusting(own, actor.decides, data, lines.seed, settings)
        lines.add(f"before {name}, learning", actor, environments, trials)
        lines.add(f"{name}, the first {PARALLEL}, learning", actor, environments, first)
        lines.add(f"{name}, then, learning", actor, environments, changed)
        lines.add(f"back from {name}, learning", actor, environments, trials)
        report(actor.decides)
    environments.close()


def mixture(agent: str, data: str, lines: Lines, episodes: int, settings: Settings) -> None:
    """The mixture by rules, before mirrored controls, with them and back again; each line counts its own decisions."""
    mind = load_mind(agent, lines.seed)
    own = replace(mind, configurator=replace(mind.configurator, chooser=Rules()))
    environments = Environments(ENV, PARALLEL, load_size(mind.model))
    trials = drawn_trials(environments, episodes, lines.seed)
    fresh = drawn_trials(environments, PARALLEL, lines.seed + 1000)
    changed, first = ([moved(one, ENV, MOTORS["mirrored controls"]) for one in some] for some in (trials, fresh))
    actor = pursuit(own, lines.seed)
    acting = actor.decides
    actor.decides = adjusting(own, acting, data, lines.seed, settings)
    for name, some in (
        ("before", trials),
        (f"mirrored, the first {PARALLEL}", first),
        ("mirrored, then", changed),
        ("back", trials),
    ):
        acting.spent = Spent()
        lines.add(f"mixture, rules, {name}", actor, environments, some)
    report(actor.decides)
    environments.close()


def report(adjusting: Adjusting) -> None:
    """What it did, block by block."""
    for one in adjusting.told.events:
        print("   ", json.dumps(one), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["modes", "surprise", "mixture"])
    parser.add_argument("agent")
    parser.add_argument("--data")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--alone", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain-replay", action="store_true", help="replay recordings untranslated")
    parser.add_argument("--out")
    asked = parser.parse_args()
    lines = Lines(asked.seed)
    if asked.what == "modes":
        mind = load_mind(asked.agent, asked.seed)
        modes(mind, lines, asked.episodes, PARALLEL, "")
        if asked.alone:
            modes(mind, lines, asked.alone, 1, ", one environment")
    else:
        settings = Settings(translate=not asked.plain_replay)
        measured = surprise if asked.what == "surprise" else mixture
        measured(asked.agent, asked.data, lines, asked.episodes, settings)
    if asked.out:
        Path(asked.out).parent.mkdir(parents=True, exist_ok=True)
        Path(asked.out).write_text(json.dumps(lines.rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
