"""`jepa-pretrain agent eval`: how often an agent reaches its goals, with intervals, floor and ceiling."""

from dataclasses import replace
from typing import Any, Literal

import torch
from rich.console import Console

from jepa_pretrain.acting.adapt import adjusting
from jepa_pretrain.acting.episode import check_actions
from jepa_pretrain.acting.load import load_mind, load_size, weighted
from jepa_pretrain.acting.outcomes import Counting, Trapped, counted, show, spent
from jepa_pretrain.acting.search import OWN, Search, searching
from jepa_pretrain.acting.staged import Passed, staged_trials, undertaking
from jepa_pretrain.agent import tworoom, umaze
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.behaviours import behaviour
from jepa_pretrain.agent.configurator import LITTLE
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.searches import describe
from jepa_pretrain.agent.thrift import Always
from jepa_pretrain.agent.trials import Acting, Actor, Outcome, Pursuit, Trial, run
from jepa_pretrain.agent.worlds.fork import fallen
from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.interval import wilson
from jepa_pretrain.evals.result import check_out, write

FLOORS = ("random", "straight", "expert")
TRAPS = {"jepa_pretrain/Fork-v0": fallen}
KNOWN = (("offset", tworoom.NAME), ("far", tworoom.NAME), ("far", umaze.NAME))  # goals beside drawn ones
BUDGET = {"offset": 50, "far": 100, "drawn": 100}


def evaluate(
    agent: str,
    env: str,
    goals: Literal["offset", "far", "drawn"] | None = None,
    episodes: int = 200,
    search: Search = OWN,
    budget: int | None = None,
    mode: Literal["configured", "never", "little", "much"] = "configured",
    task: str | None = None,
    adapt: str | None = None,
    motor: list[float] | None = None,
    variation: list[str] | None = None,
    parallel: int = 50,
    weights: dict[str, float] | None = None,
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
            (stable-worldmodel's protocol), the default there - or far, in the other room; in PointMaze_UMaze-v3 far is
            the other arm of the U.
        episodes: Trials; starts that are solved already are not among them.
        search: How plans are searched for, in place of the agent's own way.
        budget: Steps that a trial may take; 100 by default, offset goals 50.
        mode: Whether to think: as the configurator says, or always alike, to compare with it.
        task: FILE.json:NAME, a task whose stages are pursued in place of the trials' goals; they are judged by the true
            place. Trials start anywhere.
        adapt: Trajectory shards: learn from surprise, and replay these so as not to forget.
        motor: Factors on both action numbers in this package's worlds: [2, 2] is stronger motors, [-1, -1] mirrored.
        variation: What varies beside positions, such as door.position.
        parallel: Trials at a time.
        weights: Of terms of the cost and of critics, in place of the agent's own, such as '{"uncertainty": 10}'.
        flops: Count what deciding takes, perception included: products and convolutions, forwards and backwards.
        seed: Names the trials and what the planner draws.
        out: File, or folder, for the outcome as JSON.
    """
    check_out(out)
    goals = goals or ("offset" if env == tworoom.NAME else "drawn")
    _check_goals(goals, env)
    if agent in FLOORS and (task or adapt or weights or mode != "configured" or search != OWN):
        raise UserError(
            f"{agent} has no modes, does not plan or learn and is told no task: --mode, --adapt, --task, --weights and "
            "how to search are of agents"
        )
    if task and (flops or motor):
        raise UserError("--flops and --motor are of drawn trials, not of a named task: leave out --task")
    budget = BUDGET[goals] if budget is None else budget
    mind = None if agent in FLOORS else _asked(load_mind(agent, seed), search, weights, mode)
    environments = Environments(env, parallel, load_size(mind.model) if mind else 64)
    actor = pursuit(mind, seed) if mind else _floor(agent, environments, seed)
    if mind:
        check_actions(mind, environments)
    if mind and adapt:
        actor.decides = adjusting(mind, actor.decides, adapt, seed)
    if mind and task:
        trials, outcome = _staged(mind, actor, task, environments, episodes, seed, budget)
        watched = {}
    else:
        trials = _trials(environments, goals, episodes, seed, variation)
        trials = trials if motor is None else [moved(one, env, motor) for one in trials]
        outcome, watched = _watched(environments, actor, trials, budget, flops)
    environments.close()
    console = Console(highlight=False, soft_wrap=True)
    result = {"protocol": f"agent-{goals}", "encoder": agent, "env": env, "variation": variation or [], "seed": seed,
              "budget": budget} | (_told(mind) if mind else {}) | counted(trials, outcome) | spent(actor)  # fmt: skip
    result |= watched
    show(result, console)
    write(result, out, console)


def _check_goals(goals: str, env: str) -> None:
    """Goals other than drawn ones are known in some environments."""
    if goals != "drawn" and (goals, env) not in KNOWN:
        places = " and ".join(name for one, name in KNOWN if one == goals)
        raise UserError(f"{goals} goals are known in {places} only; take --goals drawn in {env}")


def _asked(mind: Agent, search: Search, weights: dict[str, float] | None, mode: str) -> Agent:
    """The agent as the command line wants it."""
    mind = searching(mind, search)
    if weights:
        mind.task = weighted(mind, weights)
    return mind if mode == "configured" else always(mind, mode)


def _watched(
    environments: Environments, actor: Actor, trials: list[Trial], budget: int, flops: bool
) -> tuple[Outcome, dict[str, Any]]:
    """Runs the trials; also who fell into a trap, in worlds that have one, and what deciding took, if asked."""
    counting = Counting(actor) if flops else None
    trapped = Trapped(TRAPS[environments.name]) if environments.name in TRAPS else None
    outcome, found = run(environments, counting or actor, trials, budget, trapped), {}
    if trapped:
        low, high = wilson(count := trapped.count(len(trials)), len(trials))
        found |= {"trapped": 100 * count / len(trials), "trapped_interval": [100 * low, 100 * high]}
    if counting:
        found |= {"gflop_per_plan": counting.flops / max(outcome.decisions, 1) / 1e9,
                  "gflop_per_episode": counting.flops / len(trials) / 1e9}  # fmt: skip
    return outcome, found


def _trials(
    environments: Environments, goals: str, episodes: int, seed: int, variation: list[str] | None
) -> list[Trial]:
    if goals == "offset":
        return tworoom.offset_trials(environments, episodes, seed, variation)
    if environments.name == umaze.NAME and goals == "far":
        return umaze.far_trials(episodes, seed)
    if goals == "far":
        return tworoom.far_trials(episodes, seed, variation)
    return drawn_trials(environments, episodes, seed, tworoom.options_of(variation))


def _staged(
    mind: Agent, actor: Actor, task: str, environments: Environments, episodes: int, seed: int, budget: int
) -> tuple[list[Trial], Outcome]:
    """A named task in place of drawn goals; won is what truly passed every stage in order."""
    named, own, stages = undertaking(mind, task)
    trials = staged_trials(environments, named, episodes, seed)
    actor = actor if isinstance(actor, Pursuit) else pursuit(mind, seed)
    actor.task, actor.stages = own, stages
    passed = Passed(torch.tensor(named.goals).float(), stages.near, episodes, environments.count)
    outcome = run(environments, actor, trials, budget, passed)
    return trials, outcome._replace(won=passed.won(episodes))


def moved(trial: Trial, env: str, motor: list[float]) -> Trial:
    """The same trial with other motors."""
    if not env.startswith("jepa_pretrain/"):
        raise UserError(f"{env} does not know other motors; this package's own worlds do")
    return trial._replace(start=trial.start | {"motor": motor})


def always(mind: Agent, mode: str) -> Agent:
    """An agent that acts in one mode, whatever the situation: never thinks, always little, or always much."""
    if mode == "little":
        if mind.configurator is None:
            raise UserError("this agent has no configurator that says what little thinking is: run `agent configure`")
        return replace(mind, reactive=False, configurator=replace(mind.configurator, chooser=Always(LITTLE)))
    if mode == "never":
        return replace(mind, reactive=True, configurator=None)
    return replace(mind, reactive=False, configurator=None, policy=None)


def pursuit(mind: Agent, seed: int) -> Pursuit:
    """The agent after the goals of trials."""
    return Pursuit(mind.model, replace(mind, seed=seed).actor, mind.task)


def _floor(name: str, environments: Environments, seed: int) -> Actor:
    seeds = [seed + row for row in range(environments.count)]
    return Acting(behaviour(name, environments.name, environments.actions), seeds)


def _told(mind: Agent) -> dict[str, Any]:
    """What an outcome says of the agent."""
    task = mind.task
    plain = describe(mind.planner)[0]
    return {"planner": plain["class"], "settings": plain["args"], "reactive": mind.reactive, "horizon": task.horizon,
            "u": dict(task.u), "v": dict(task.v), "risk": task.risk}  # fmt: skip
