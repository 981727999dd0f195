"""`jepa-pretrain agent calibrate`: may a critic be believed? Steps it predicts beside steps that were then taken.

The agent pursues its goals as in `agent eval`. At every decision its critic says how many steps of the model are left;
what was left, the end of the trial tells. Trials that do not reach their goal have no such number and are left out, so
that a critic that says "never" where the agent then fails is not blamed.
"""

from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from jepa_pretrain.acting.episode import place, trials_of
from jepa_pretrain.acting.evaluate import pursuit
from jepa_pretrain.acting.load import load_mind
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.calibration import calibration
from jepa_pretrain.agent.critic import ToGoal
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Decides, Outcome, Pursuit, run
from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.result import check_out, write


def calibrate(
    agent: str,
    env: str,
    episodes: int = 100,
    budget: int = 100,
    bins: int = 8,
    variation: list[str] | None = None,
    parallel: int = 50,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Compare the steps to a goal that an agent's critic predicts with those that it then takes.

    Args:
        agent: Folder of an agent with a critic.
        env: Gymnasium id of an environment that can be put at its goal.
        episodes: Trials.
        budget: Steps that each may take.
        bins: Of predictions, as many in each.
        variation: What varies beside positions in swm/TwoRoom-v1, such as door.position.
        parallel: Trials at a time.
        seed: Names the trials and what the planner draws.
        out: File, or folder, for the outcome as JSON.
    """
    check_out(out)
    mind = load_mind(agent, seed)
    critic = steps_critic(mind)
    environments = place(mind, env, parallel)
    trials, actor = trials_of(environments, episodes, seed, variation), pursuit(mind, seed)
    assert isinstance(actor, Pursuit)
    actor.decides = foreseeing = Foreseeing(actor.decides, critic)
    outcome = run(environments, actor, trials, budget)
    environments.close()
    predicted, realised = foreseeing.beside(outcome, mind.model.block)
    found, console = calibration(predicted, realised, bins), Console(highlight=False, soft_wrap=True)
    console.print(f"steps of the model to go, {sum(outcome.won)} of {episodes} trials reached their goal in {env}")
    console.print(found.table())
    console.print(f"off by {found.error:.2f} steps on average over the bins, correlation {found.correlation:.3f}")
    result: dict[str, Any] = {"protocol": "agent-calibrate", "encoder": agent, "env": env, "seed": seed,
                              "predicted": found.predicted.tolist(), "realised": found.realised.tolist(),
                              "count": found.count.tolist(), "error": found.error,
                              "correlation": found.correlation}  # fmt: skip
    write(result, out, console)


def steps_critic(mind: Agent) -> ToGoal:
    """The critic of steps that an agent's task weighs.

    Raises:
        UserError: it has none.
    """
    found = [mind.cost.critics[name] for name in mind.task.v if isinstance(mind.cost.critics[name], ToGoal)]
    if not found:
        raise UserError("this agent has no critic of steps: `agent critic` makes one")
    return found[0]


class Foreseeing:
    """Who decides, and what a critic said at every decision.

    Args:
        decides: A planner or a policy.
        critic: Says how far it still is.
    """

    def __init__(self, decides: Decides, critic: ToGoal) -> None:
        self.decides, self.critic = decides, critic
        self.first = self.count = self.time = 0
        self.said: list[tuple[Tensor, int, Tensor]] = []  # trials, how many decisions came before, steps to go

    def begin(self, environments: int) -> None:
        self.first, self.count, self.time = self.first + self.count, environments, 0
        self.decides.begin(environments)

    @torch.no_grad()
    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        names = torch.arange(len(state)) if rows is None else rows
        self.said.append((self.first + names, self.time, self.critic.steps(self.critic(state, task))))
        self.time += 1
        return self.decides.act(state, task, rows)

    def beside(self, outcome: Outcome, block: int) -> tuple[Tensor, Tensor]:
        """Steps of the model predicted and taken, `(M,)` each, at all decisions of trials that were won.

        Args:
            outcome: Of the trials.
            block: Environment steps per step of the model.
        """
        won, steps = torch.tensor(outcome.won), torch.tensor(outcome.steps, dtype=torch.float32)
        predicted, realised = [], []
        for trials, time, value in self.said:
            kept = won[trials]
            predicted.append(value[kept])
            realised.append(steps[trials[kept]] / block - time)
        return torch.cat(predicted), torch.cat(realised)
