"""`jepa-pretrain agent eval`: how often an agent reaches its goals, with intervals, floor and ceiling."""

from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from jepa_pretrain.acting.critic import load_critic
from jepa_pretrain.acting.load import load_world
from jepa_pretrain.agent import tworoom
from jepa_pretrain.agent.actor import Planning
from jepa_pretrain.agent.behaviours import behaviour
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.planners.cem import CEM, ICEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.mppi import MPPI
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Acting, Actor, Outcome, Pursuit, Trial, run
from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.interval import wilson
from jepa_pretrain.evals.result import check_out, write

FLOORS = ("random", "straight", "expert")
BUDGET = {"offset": 50, "far": 100}


def evaluate(
    agent: str,
    env: str = tworoom.NAME,
    goals: Literal["offset", "far"] = "offset",
    critic: str | None = None,
    goal_weight: float = 1.0,
    critic_weight: float = 1.0,
    episodes: int = 200,
    planner: Literal["gradient", "cem", "icem", "mppi"] = "gradient",
    horizon: int = 8,
    samples: int = 64,
    iterations: int = 20,
    starts: int = 1,
    budget: int | None = None,
    variation: list[str] | None = None,
    parallel: int = 50,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Measure how often an agent reaches goals that it is shown as pictures.

    Args:
        agent: Folder of a world model, or random, straight or expert: the floor and the ceiling.
        env: Gymnasium id; start and goal are known how to set in swm/TwoRoom-v1.
        goals: offset - 25 steps ahead in an expert's episode (stable-worldmodel's protocol); far - in the other room.
        critic: File of a critic that `agent critic` made, for the cost.
        goal_weight: Weight of the distance to the goal in the cost; with a critic 0 may do.
        critic_weight: Weight of the critic.
        episodes: Trials; starts that are solved already are not among them.
        planner: Searches for plans.
        horizon: Steps of the model to look ahead.
        samples: Plans per iteration of the sampling planners.
        iterations: Of any planner.
        starts: Plans that the gradient planner improves side by side.
        budget: Steps that a trial may take; 50 by default, far goals 100.
        variation: What varies beside positions, such as door.position.
        parallel: Trials at a time.
        seed: Names the trials and what the planner draws.
        out: File, or folder, for the outcome as JSON.
    """
    check_out(out)
    if env != tworoom.NAME:
        raise UserError(f"agent eval knows how to set start and goal in {tworoom.NAME} only, not in {env}")
    budget = BUDGET[goals] if budget is None else budget
    if agent in FLOORS:
        environments = Environments(env, parallel, 64)
        actor: Actor = Acting(behaviour(agent, env, environments.actions), [seed + row for row in range(parallel)])
        told = {}
    else:
        model = load_world(agent)
        environments = Environments(env, parallel, model.image_size)
        search = _planner(planner, samples, iterations, starts)
        critics = {"steps": load_critic(critic)} if critic else {}
        u, v = {"goal": goal_weight} if goal_weight else {}, {name: critic_weight for name in critics}
        task = Task(torch.zeros(1, 1, model.width), horizon, u, v)
        actor = Pursuit(model, Planning(model, Cost(model.action, critics), search, seed), task)
        told = {"planner": planner, "settings": vars(search), "horizon": horizon, "u": u, "v": v}
    if goals == "offset":
        trials = tworoom.offset_trials(environments, episodes, seed, variation)
    else:
        trials = tworoom.far_trials(episodes, seed, variation)
    outcome = run(environments, actor, trials, budget)
    environments.close()
    console = Console(highlight=False, soft_wrap=True)
    result = {"protocol": f"agent-{goals}", "encoder": agent, "env": env, "variation": variation or [], "seed": seed,
              "budget": budget} | told | counted(trials, outcome)  # fmt: skip
    show(result, console)
    write(result, out, console)


def _planner(name: str, samples: int, iterations: int, starts: int) -> Planner:
    if name == "gradient":
        return Gradient(starts=starts, iterations=iterations)
    kind = {"cem": CEM, "icem": ICEM, "mppi": MPPI}[name]
    return kind(samples=samples, iterations=iterations, elites=max(samples // 8, 2))


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
