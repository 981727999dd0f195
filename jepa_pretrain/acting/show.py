"""`jepa-pretrain agent show`: one episode of an agent, as a GIF and a page."""

from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from jepa_pretrain.acting.episode import goal_of, place, pursue, trials_of
from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.acting.pictures import read_goal, sized
from jepa_pretrain.acting.search import OWN, Search, searching
from jepa_pretrain.agent.behaviours import SCRIPTED, behaviour
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.rollouts import play
from jepa_pretrain.agent.show import Recorder
from jepa_pretrain.agent.sight import observed
from jepa_pretrain.agent.trials import Trial
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes
from jepa_pretrain.models.glances import at_rest
from jepa_pretrain.report.episode import show as draw

BANK, WALKS, STRIDE = 2000, 8, 200  # frames to look imagined states up in; episodes played for it, and their steps


def show(
    agent: str,
    env: str,
    out: str,
    data: str | None = None,
    goal: str | None = None,
    budget: int = 100,
    search: Search = OWN,
    variation: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Draw one episode: what the agent saw, imagined futures beside real ones, energies, candidate plans.

    Args:
        agent: Folder of an agent, or of a world model.
        env: Gymnasium id of an environment that can be put at its goal.
        out: Folder for `episode.gif` and `episode.html`.
        data: Trajectory shards whose frames stand for imagined states; by default some behaviour is played now, with
            the same doors and colours.
        goal: Picture file of the goal, in place of what the environment looks like at its own goal.
        budget: Steps that it may take.
        search: How plans are searched for, in place of the agent's own way.
        variation: What varies beside positions in swm/TwoRoom-v1, such as door.position.
        seed: Names start, goal, and what the planner draws.
    """
    mind, console = searching(load_mind(agent, seed), search), Console(highlight=False, soft_wrap=True)
    size = load_size(mind.model)
    given = None if goal is None else read_goal(goal, size)
    environments = place(mind, env)
    (trial,) = trials_of(environments, 1, seed, variation)
    wanted = goal_of(environments, trial) if given is None else given
    known = _played(environments, trial, seed) if data is None else read_episodes(data, BANK, console)
    bank = sized(observed(mind.model, known), size, data or env)[:BANK]
    places = _places(known, env)
    if given is None:
        bank = torch.cat([bank, at_rest(wanted, mind.model.frames)])
        places = None if places is None else torch.cat([places, torch.tensor(trial.goal["state"])[None].float()])
    recorder = Recorder(mind, wanted[0], bank, places=places)
    ended = pursue(mind, environments, trial, budget, wanted, recorder)
    environments.close()
    word = "Reached" if ended.won else "Not reached"
    page = draw(recorder.episode(), out, f"{word} in {ended.steps} steps: {Path(agent).name} in {env}")
    console.print(f"{word.lower()} in {ended.steps} steps; {page} and {page.with_suffix('.gif')}")


def _places(episodes: list[Episode], env: str) -> Tensor | None:
    """Where the agent was in every frame, `(M, 2)`, in worlds that lie on the unit square: those of this package."""
    return torch.cat([one.state[:, :2] for one in episodes])[:BANK] if env.startswith("jepa_pretrain/") else None


def _played(environments: Environments, trial: Trial, seed: int) -> list[Episode]:
    """Behaviour in the very world that the agent is in, as the explorer or else sticky behaviour finds it."""
    name = "explorer" if "explorer" in SCRIPTED.get(environments.name, {}) else "sticky"
    actor, found = behaviour(name, environments.name, environments.actions), []
    for number, start in enumerate([trial.start, trial.goal] * (WALKS // 2)):
        found += play(environments, actor, [trial.seed], STRIDE, [dict(start)], draws=[number])
    kept = [one for one in found if isinstance(one, Episode)]
    if not kept:
        raise UserError(f"{environments.name} throws in every episode")
    return kept
