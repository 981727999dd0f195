"""`jepa-pretrain agent distill`: from Mode-2 to Mode-1, a policy learns what the planner does."""

import time
from dataclasses import replace

import torch
from rich.console import Console
from torch import Tensor

from jepa_pretrain.acting.episode import check_actions, trials_of
from jepa_pretrain.acting.load import load_mind, load_size
from jepa_pretrain.agent.actor import Planning, Policy
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.distil import Visit, distil
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.folder import save_agent
from jepa_pretrain.agent.sight import encoded, encoded_at_rest
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Pursuit, run
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import read_episodes

PARALLEL, BUDGET = 32, 100  # trials at a time, and steps of each, where the policy is visited


def distill(
    agent: str,
    data: str,
    out: str,
    env: str | None = None,
    warm: bool = False,
    states: int = 4000,
    rounds: int = 4,
    steps: int = 250,
    trials: int = 64,
    ask: int = 300,
    seed: int = 0,
) -> None:
    """Teach a policy what an agent's planner does, and write the agent with it.

    Dataset aggregation: the planner is asked in recorded states first, then in those that the policy comes to.

    Args:
        agent: Folder of an agent, or of a world model.
        data: Trajectory shards of `agent collect`, for states and goals.
        out: Folder for the agent with its policy.
        env: Gymnasium id where the policy is run between the rounds; without, the world model is asked where it leads.
        warm: Plans go on, and start from what the policy would do; otherwise the policy acts alone.
        states: Recorded states with goals that it learns from.
        rounds: Of asking and learning.
        steps: Training steps in each round.
        trials: Episodes of the policy between two rounds.
        ask: States in each round that the planner is asked about.
        seed: Names states, goals, initial weights and trials.
    """
    began, console = time.perf_counter(), Console(highlight=False, soft_wrap=True)
    mind, generator = load_mind(agent, seed), torch.Generator().manual_seed(seed)
    if min(states, rounds, trials, ask) < 1:
        raise UserError(
            f"distilling needs states, rounds, trials and some to ask about, found {states}, {rounds}, {trials}, {ask}"
        )
    visit = None if env is None else _visits(mind, env, trials, seed)
    seen, goals = pairs(mind, read_episodes(data, console=console), states, generator)
    torch.manual_seed(seed)
    policy = Policy.of(mind.model)
    teacher = Planning(mind.model, mind.cost, mind.planner, seed)
    losses = distil(policy, teacher, mind.task, seen, goals, generator, visit, rounds, steps, ask=ask)
    folder = save_agent(replace(mind, policy=policy, reactive=not warm), out)
    told = ", ".join(f"{one:.4f}" for one in losses)
    console.print(f"{rounds} rounds in {time.perf_counter() - began:.0f} s: loss {told}; in {folder}")


@torch.no_grad()
def pairs(mind: Agent, episodes: list[Episode], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Recorded states with goals, half of them later in the same episode, half anywhere, at rest: `(P, 1, D)`
    each.

    Args:
        mind: Encodes.
        episodes: Recordings.
        count: P.
        generator: Draws them.
    """
    lengths = torch.tensor([len(one.frames) for one in episodes])
    end = lengths.cumsum(0).repeat_interleave(lengths)  # (S,) behind the last frame of each frame's episode
    start = torch.randint(len(end), (count,), generator=generator)
    later = start + (torch.rand(count, generator=generator) * (end[start] - start)).long()
    anywhere = torch.randint(len(end), (count,), generator=generator)
    goal = torch.where(torch.arange(count) < count // 2, later, anywhere)
    return encoded(mind.model, episodes, start), encoded_at_rest(mind.model, episodes, goal)


class _Noting:
    """A policy, and what it was asked."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.met: list[tuple[Tensor, Tensor]] = []

    def begin(self, environments: int) -> None:
        self.policy.begin(environments)

    def forget(self, rows: Tensor) -> None:
        self.policy.forget(rows)

    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        self.met.append((state, task.goal.expand_as(state)))
        return self.policy.act(state, task, rows)


def _visits(mind: Agent, env: str, trials: int, seed: int) -> Visit:
    """Runs a policy in an environment, other trials every time, and tells which states it met with which goals."""
    environments = Environments(env, min(PARALLEL, trials), load_size(mind.model))
    check_actions(mind, environments)
    turns = iter(range(1_000_000))

    def visit(policy: Policy) -> tuple[Tensor, Tensor]:
        noting = _Noting(policy)
        chosen = trials_of(environments, trials, seed + 1_000_000 + next(turns), None)
        run(environments, Pursuit(mind.model, noting, mind.task), chosen, BUDGET)
        states, goals = zip(*noting.met, strict=True)
        return torch.cat(states), torch.cat(goals)

    return visit
