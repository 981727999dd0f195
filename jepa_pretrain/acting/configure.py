"""`jepa-pretrain agent configure`: when to react and when to think, by rules or learned; and a readout for goals."""

import time
from dataclasses import replace

import torch
from rich.console import Console

from jepa_pretrain.acting.distill import pairs
from jepa_pretrain.acting.episode import check_actions, trials_of
from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.acting.steps import transitions
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.configurator import LITTLE, MODES, MUCH, Configurator, Rules, Thrift
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.folder import save_agent
from jepa_pretrain.agent.mixture import Mixture
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.mcts import MCTS
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.planners.sampling import Sampling
from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.sight import encoded
from jepa_pretrain.agent.surprise import Usual
from jepa_pretrain.agent.thrift import Lessons, Noting, Trying, imagine_lessons, learn
from jepa_pretrain.agent.trials import Pursuit, run
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes

PARALLEL, BUDGET = 50, 100  # trials at a time, and steps of each, where modes are tried
TIMED = 16  # states for which each mode is timed
LESS = 4  # times fewer iterations where it thinks little


def configure(
    agent: str,
    data: str,
    out: str,
    env: str | None = None,
    rules: bool = False,
    horizon: int = 4,
    states: int = 500,
    trials: int = 150,
    rounds: int = 2,
    enough: float = 0.5,
    price: float = 1.0,
    seed: int = 0,
) -> None:
    """Give an agent a configurator, which says at every decision whether to react, think little or think much.

    Learned: a small network predicts what each mode brings. It is taught by the world model in recorded states, and in
    an environment by trying modes; without one, it believes a model that may be wrong just where thinking is needed.

    Args:
        agent: Folder of an agent with a policy, of `agent distill`.
        data: Trajectory shards of `agent collect`: what is usual is measured on them, and a readout fitted.
        out: Folder for the agent.
        env: Gymnasium id where modes are tried; none for rules or to learn from imagination alone.
        rules: Rules written by hand in place of the network; nothing is learned.
        horizon: Model steps that thinking little looks ahead.
        states: Recorded states in which all modes are imagined.
        trials: Episodes in each round of trying.
        rounds: Of trying and learning.
        enough: Usual steps that a block of actions should bring; reacting is preferred while it is expected to.
        price: Usual steps that thinking much has to bring where nothing is enough.
        seed: Names states, goals, initial weights and trials.
    """
    began, console = time.perf_counter(), Console(highlight=False, soft_wrap=True)
    mind, generator = load_mind(agent, seed), torch.Generator().manual_seed(seed)
    if mind.policy is None:
        raise UserError(f"{agent} has no policy to react with: make one with `agent distill`")
    if min(states, trials, rounds) < 1:
        raise UserError(f"learning needs states, trials and rounds, found {states}, {trials} and {rounds}")
    episodes = read_episodes(data, console=console)
    usual = Usual.of(mind.model, mind.cost, mind.task, transitions(mind.model, episodes))
    made = Configurator(Rules(), usual, lighter(mind.planner), horizon)
    mind = replace(mind, reactive=False, configurator=made, readout=_readout(mind, episodes, console))
    told = "rules"
    if not rules:
        torch.manual_seed(seed)
        thrift = Thrift(_efforts(_mixture(mind), mind, episodes, generator), enough, price)
        lessons = [imagine_lessons(_mixture(mind), mind.task, *pairs(mind, episodes, states, generator))]
        for number in range(rounds if env else 1):
            if env:
                mind = replace(mind, configurator=replace(made, chooser=thrift if number else Rules()))
                lessons.append(_tried(mind, env, trials, seed + 2_000_000 + number, 0.3 if number else 1.0, generator))
            loss = learn(thrift, Lessons.join(lessons), generator)
        mind = replace(mind, configurator=replace(made, chooser=thrift))
        effort = ", ".join(f"{name} {one:.3f}" for name, one in zip(MODES, thrift.effort.tolist(), strict=True))
        told = f"{sum(len(one.fall) for one in lessons)} lessons, loss {loss:.3f}; effort: {effort}"
    folder = save_agent(mind, out)
    median, high = (float(usual.errors[level]) for level in (50, 99))
    console.print(f"{told}; usual error {median:.3g}, 99 % below {high:.3g}; {time.perf_counter() - began:.0f} s")
    console.print(f"in {folder}")


def lighter(planner: Planner) -> Planner:
    """The same planner with a fraction of its work."""
    if isinstance(planner, Gradient | Sampling):
        return replace(planner, iterations=max(planner.iterations // LESS, 1))
    if isinstance(planner, Beam):
        return replace(planner, width=max(planner.width // LESS, 1))
    if isinstance(planner, MCTS):
        return replace(planner, simulations=max(planner.simulations // LESS, 1))
    return planner


@torch.no_grad()
def _readout(mind: Agent, episodes: list[Episode], console: Console) -> Readout | None:
    if not episodes[0].proprio.shape[1]:
        return None
    found = Readout.of(encoded(mind.model, episodes), torch.cat([one.proprio for one in episodes]))
    console.print(f"the body's {found.width} numbers are read from states, {float(found.error):.3g} off on average")
    return found


def _mixture(mind: Agent) -> Mixture:
    return Mixture(mind.model, mind.cost, mind.planner, mind.policy, mind.configurator, mind.seed)


def _efforts(mixture: Mixture, mind: Agent, episodes: list[Episode], generator: torch.Generator) -> list[float]:
    """Seconds that thinking takes in each mode, in units of the last; measured here, as it depends on the machine."""
    states, goals = pairs(mind, episodes, TIMED, generator)
    task, taken = replace(mind.task, goal=goals), []
    short = replace(task, horizon=min(mixture.configurator.horizon, task.horizon))
    for mode, one in ((LITTLE, short), (MUCH, task)):
        began = time.perf_counter()
        mixture.planning[mode].act(states, one)
        taken.append(time.perf_counter() - began)
    return [0.0, round(min(taken[0] / taken[1], 1.0), 3), 1.0]


def _tried(mind: Agent, env: str, trials: int, seed: int, share: float, generator: torch.Generator) -> Lessons:
    """What modes brought in an environment: some are drawn, and otherwise the configurator is followed."""
    environments = Environments(env, min(PARALLEL, trials), load_size(mind.model))
    check_actions(mind, environments)
    mixture = _mixture(mind)
    mixture.configurator = replace(mind.configurator, chooser=Trying(generator, mind.configurator.chooser, share))
    noting = Noting(mixture)
    run(environments, Pursuit(mind.model, noting, mind.task), trials_of(environments, trials, seed, None), BUDGET)
    environments.close()
    return noting.lessons()
