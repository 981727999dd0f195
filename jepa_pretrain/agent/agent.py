"""The whole agent: perception and world model, cost with its critics, short-term memory, actor (LeCun 2022, figure 2).

It is asked with pictures and answers with actions of the environment, one step at a time, for any number of
environments at once. Each has its own block of actions to finish; whoever has finished is planned for, together.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.agent.actor import Decides, Planning, Policy
from jepa_pretrain.agent.adjusting import Adjusting
from jepa_pretrain.agent.configurator import Choice, Configurator, Situation
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.memory import Memory, Moment
from jepa_pretrain.agent.mixture import Mixture
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.planners.problem import Plan
from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.sight import Sight, goal_state
from jepa_pretrain.agent.stages import Stages
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel, imagine
from jepa_pretrain.contracts import UserError


class Decision(NamedTuple):
    """What went on in the agent when it last decided."""

    rows: Tensor  # (B,) the environments it decided for
    state: Tensor  # (B, N, D) what it saw
    action: Tensor  # (B, A) what it chose
    plan: Plan | None  # None for a policy
    states: Tensor | None  # (B, L, N, D) what it imagines will follow
    terms: dict[str, Tensor]  # (B,) every term of the cost, of what it saw
    choice: Choice | None = None  # of the configurator, and
    situation: Situation | None = None  # what it saw


@dataclass
class Agent:
    """Joins the modules.

    Args:
        model: sees and predicts.
        cost: judges, with its critics.
        planner: searches.
        task: horizon, weights and guardrails; the goal is replaced in `pursue`.
        policy: Mode-1; acts alone if `reactive`, and otherwise starts the plans.
        reactive: act without planning.
        memory: what happened; None for none.
        seed: of what the search draws.
        watched: keep what was imagined and what it would cost, for pages; takes time.
        configurator: says of every decision whether to react or to think, unless `reactive`; needs a policy.
        readout: makes vectors goals, for tasks that speak in them.
    """

    model: WorldModel
    cost: Cost
    planner: Planner
    task: Task
    policy: Policy | None = None
    reactive: bool = False
    memory: Memory | None = None
    seed: int = 0
    watched: bool = False
    configurator: Configurator | None = None
    readout: Readout | None = None
    stages: Stages | None = field(default=None, init=False)
    last: Decision | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.reactive and self.policy is None:
            raise UserError("a reactive agent needs a policy; distil one, or let it plan")
        if self.policy is not None and len(self.policy.centre) != self.model.width * self.model.grid_tokens:
            raise UserError(
                f"the policy reads {len(self.policy.centre)} numbers, a state of this world model has "
                f"{self.model.width * self.model.grid_tokens}"
            )
        if self.configurator is not None and self.policy is None:
            raise UserError("a configurator chooses between a policy and a planner: distil a policy first")
        self.sight = Sight(self.model.frames)
        self.actor: Decides = self._actor()  # may be put into an `Adjusting`, to learn from surprise

    def _actor(self) -> Policy | Mixture | Planning:
        if self.policy and self.reactive:
            return self.policy
        if self.policy and self.configurator:
            return Mixture(self.model, self.cost, self.planner, self.policy, self.configurator, self.seed)
        return Planning(self.model, self.cost, self.planner, self.seed, self.policy)

    def pursue(self, goal: Tensor) -> None:
        """Begin an episode in each environment.

        Args:
            goal: pictures of what to reach, `(E, C, H, W)` uint8.
        """
        with torch.no_grad():
            self.task, self.stages = replace(self.task, goal=goal_state(self.model, goal)), None
        self._begin(len(goal))

    def undertake(self, task: Task, stages: Stages, environments: int) -> None:
        """Begin an episode in each environment, with a task of several stages.

        Args:
            task: horizon, weights, guardrails.
            stages: the goals.
            environments: how many.
        """
        self.task, self.stages = task, stages
        self._begin(environments)

    def _begin(self, count: int) -> None:
        self.actor.begin(count)
        self.sight.begin(count)
        if self.stages is not None:
            self.stages.begin(count)
        self.block = self.task.goal.new_zeros(count, self.model.block, self.model.action.width // self.model.block)
        self.done = torch.full((count,), self.model.block)  # steps of its block that each environment has taken
        self.time = torch.full((count,), -1)

    def begin_again(self, rows: Tensor) -> None:
        """New episodes, towards the same goals, in some environments; `rows` `(B,)`."""
        self.done[rows], self.time[rows] = self.model.block, -1
        self.actor.forget(rows)
        self.sight.forget(rows)
        if self.stages is not None:
            self.stages.at[rows] = 0

    def act(self, frames: Tensor) -> Tensor:
        """The next action of the environment.

        Args:
            frames: what each environment shows now, one picture each, `(E, C, H, W)` uint8; of those before, it
                remembers what its world model wants to see.

        Returns:
            `(E, a)`.

        Raises:
            UserError: no goal was given, or another number of pictures than of goals.
        """
        if "block" not in self.__dict__:
            raise UserError("this agent has no goal: call `pursue` with a picture of it first")
        if len(frames) != len(self.block):
            raise UserError(f"this agent pursues {len(self.block)} goals, found {len(frames)} pictures")
        due = (self.done >= self.model.block).nonzero()[:, 0]
        if len(due):
            self._decide(frames, due)
        action = self.block[torch.arange(len(self.block)), self.done]
        self.done += 1
        return action

    def _decide(self, frames: Tensor, due: Tensor) -> None:
        """Look, and fill the blocks of the environments that are due."""
        with torch.no_grad():
            state = self.model.encode(self.sight.look(frames[due], due))
        task = staged_task(self.task, self.stages, state, due, self.actor)
        action = self.actor.act(state, task, due)
        self.block[due] = action.unflatten(1, (self.model.block, -1))
        self.done[due], self.time[due] = 0, self.time[due] + 1
        if self.memory is not None:
            self._remember(state, action, task, due)
        if self.watched:
            self._watch(state, action, task, due)

    def _remember(self, state: Tensor, action: Tensor, task: Task, due: Tensor) -> None:
        """Intrinsic energies only: a critic's own opinion is nothing to learn from."""
        if len(due) < len(self.block):
            raise UserError("the memory takes all environments at once; start their episodes together, or set none")
        disagreement = state.new_zeros(len(state), 1)  # what is seen is not in doubt
        with torch.no_grad():
            plain = replace(task, v={})
            energy = self.cost.charge(state[:, None], action[:, None], plain, disagreement).running[:, 0]
        self.memory.write(Moment(self.time.clone(), state, action, energy))

    def _watch(self, state: Tensor, action: Tensor, task: Task, due: Tensor) -> None:
        actor = self.actor.decides if isinstance(self.actor, Adjusting) else self.actor
        plan = actor.found if isinstance(actor, Planning | Mixture) else None
        actions = plan.actions if plan else action[:, None]
        with torch.no_grad():
            states, _ = imagine(self.model, state, actions)
        disagreement = state.new_zeros(len(state), 1)
        terms = self.cost.terms(state[:, None], action[:, None], task, disagreement)
        told = (actor.choice, actor.situation) if isinstance(actor, Mixture) else ()
        self.last = Decision(due, state, action, plan, states, {name: one[:, 0] for name, one in terms.items()}, *told)


def staged_task(task: Task, stages: Stages | None, state: Tensor, rows: Tensor, actor: Decides) -> Task:
    """The task of some environments, at the stage that each has come to.

    Args:
        task: of all.
        stages: its sub-goals, or None.
        state: what they see, `(B, N, D)`.
        rows: which they are, `(B,)`.
        actor: forgets the plans towards a goal that was left behind.
    """
    if stages is None:
        return task.of(rows)
    goal, turned = stages.follow(state, rows)
    actor.forget(rows[turned])
    return replace(task, goal=goal)
