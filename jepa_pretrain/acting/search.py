"""How an agent is to search for plans, as the commands take it."""

from dataclasses import dataclass, replace
from typing import Literal

from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.levels import model_of
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.cem import CEM, ICEM
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.hierarchical import Hierarchical, Upper
from jepa_pretrain.agent.planners.joint import Joint
from jepa_pretrain.agent.planners.mcts import MCTS
from jepa_pretrain.agent.planners.mppi import MPPI
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.searches import hierarchy_of
from jepa_pretrain.agent.uncertainty import Stochastic, members
from jepa_pretrain.contracts import UserError

SAMPLES, ITERATIONS, STARTS = 64, 20, 1  # of a planner that is asked for by name
SIZES = {  # what can be said of which
    "gradient": ("iterations", "starts"), "joint": ("iterations", "starts"), "cem": ("samples", "iterations"),
    "icem": ("samples", "iterations"), "mppi": ("samples", "iterations"), "beam": ("samples",), "mcts": ("samples",),
}  # fmt: skip
FLAT = 8  # model steps that an agent with levels looks ahead where it is asked to plan on the lowest alone


@dataclass(frozen=True)
class Search:
    """In place of an agent's own way of searching; all of it is the agent's own by default.

    Args:
        planner: Searches for plans, with the settings below; gradient for a world model by default. hierarchical and
            joint need an agent of `agent levels`, which plans so by itself; any other plans on its lowest level alone.
        horizon: Steps of the model to look ahead; 8 for a world model by default.
        samples: Plans per iteration of the sampling planners, width of a beam, simulations of MCTS; 64 by default.
        iterations: Of gradient, joint and the sampling planners; 20 by default.
        starts: Plans that gradient, or joint, improves side by side; 1 by default.
        levels: Plan on so many levels, the lowest ones.
        lifted: Measure sub-goals in the latent space of the level that sets them; false looks them up among recorded
            states of the level below.
        near: Weight of staying near recorded macro-actions, in steps of the level for each squared deviation.
        reach: Deviations of the recorded macro-actions within which to search for others.
        risk: Standard deviations that are added to the mean cost of what may come: 0 neutral, above averse.
        futures: Draws of chance that each plan is judged by, where the model has a latent variable; 16 by default.
    """

    planner: Literal["gradient", "cem", "icem", "mppi", "beam", "mcts", "hierarchical", "joint"] | None = None
    horizon: int | None = None
    samples: int | None = None
    iterations: int | None = None
    starts: int | None = None
    levels: int | None = None
    lifted: bool | None = None
    near: float | None = None
    reach: float | None = None
    risk: float | None = None
    futures: int | None = None


OWN = Search()


def searching(mind: Agent, search: Search) -> Agent:
    """The agent, searching as it is asked to.

    Args:
        mind: An agent; it is not changed.
        search: What differs from its own way.

    Raises:
        UserError: Levels are asked of an agent that has none, or not so many; a size that the planner has not;
            futures or risk where nothing is uncertain.
    """
    own, task = hierarchy_of(mind.planner), mind.task
    _check_sizes(search)
    if search.planner in (None, "hierarchical", "joint"):
        planner = _on_levels(mind.planner, own, search)
    else:
        planner = _flat(search.planner, search)
    if own is not None and hierarchy_of(planner) is None:
        task = replace(task, horizon=FLAT)
    if search.horizon is not None:
        task = replace(task, horizon=search.horizon)
    chance, doubt = _unsure(mind, own)
    if search.futures is not None:
        if not chance:
            raise UserError("this agent knows one future, as it has no latent variable: `agent levels` trains one")
        task = replace(task, samples=search.futures)
    if search.risk is not None:
        if search.risk and not chance and not doubt:
            raise UserError(
                "risk takes a latent variable (`agent levels`) or members (`agent train`), this agent has neither"
            )
        task = replace(task, risk=search.risk)
    return replace(mind, planner=planner, task=task)


def _check_sizes(search: Search) -> None:
    """Refuse a size that the planner has no use for, rather than leave it aside."""
    for size in ("samples", "iterations", "starts"):
        if getattr(search, size) is not None and size not in SIZES.get(search.planner, ()):
            named = f"{search.planner} has no {size}" if search.planner else f"name the planner that {size} are for"
            having = ", ".join(name for name, sizes in SIZES.items() if size in sizes)
            raise UserError(f"{named}: these have {size}: {having}")


def _unsure(mind: Agent, levels: Hierarchical | None) -> tuple[bool, bool]:
    """Whether chance comes into what an agent imagines, on any level, and whether there are members to differ."""
    models = [*members(mind.model), *(level.model for level in (levels.levels if levels else ()))]
    return any(isinstance(one, Stochastic) for one in models), len(members(mind.model)) > 1


def _flat(name: str, search: Search) -> Planner:
    samples, iterations, starts = _sizes(search)
    if name == "gradient":
        return Gradient(starts=starts, iterations=iterations)
    if name == "beam":
        return Beam(width=samples)
    if name == "mcts":
        return MCTS(simulations=samples)
    kind = {"cem": CEM, "icem": ICEM, "mppi": MPPI}[name]
    return kind(samples=samples, iterations=iterations, elites=max(samples // 8, 2))


def _sizes(search: Search) -> tuple[int, int, int]:
    """Samples, iterations and starts."""
    asked = zip((search.samples, search.iterations, search.starts), (SAMPLES, ITERATIONS, STARTS), strict=True)
    samples, iterations, starts = (usual if one is None else one for one, usual in asked)
    return samples, iterations, starts


def _on_levels(planner: Planner, own: Hierarchical | None, search: Search) -> Planner:
    """The agent's own planner, with other settings of its levels."""
    asked = (search.planner, search.levels, search.lifted, search.near, search.reach)
    if own is None:
        if any(one is not None for one in asked):
            raise UserError("this agent has no levels to plan on: make one with `agent levels`")
        return planner
    count = len(own.levels) + 1 if search.levels is None else search.levels
    if not 1 <= count <= len(own.levels) + 1:
        raise UserError(f"this agent has levels 1 to {len(own.levels) + 1}, asked for {count}")
    uppers = tuple(_changed(one, search.near, search.reach) for one in own.levels[: count - 1])
    if not uppers:
        return own.planner
    lifted = own.lifted if search.lifted is None else search.lifted
    found = replace(own, levels=uppers, lifted=lifted)
    if search.planner == "joint":
        _, iterations, starts = _sizes(search)
        return Joint(found, starts, iterations)
    return replace(planner, first=found) if isinstance(planner, Joint) and search.planner is None else found


def _changed(level: Upper, near: float | None, reach: float | None) -> Upper:
    """A level with another weight of the recorded macro-actions, or with wider bounds."""
    recorded, model = level.cost.recorded, level.model
    if near is not None and level.pace is not None:
        level = replace(level, u={**level.u, "recorded": near * level.pace})
    if reach is not None and recorded is not None:
        model = model_of(model.hierarchy, model.number, recorded.space(reach))
        level = replace(level, model=model, cost=Cost(model.action, recorded=recorded), lift=model.lift)
    return level
