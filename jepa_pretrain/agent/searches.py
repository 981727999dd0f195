"""Planners as plain data and tensors, and back; those that search on several levels need the levels as well."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.levels import LevelModel, model_of
from jepa_pretrain.agent.plain import checked, refusing, settings
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.cem import CEM, ICEM
from jepa_pretrain.agent.planners.dynamic import Dynamic
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.hierarchical import Hierarchical, Upper
from jepa_pretrain.agent.planners.joint import Joint
from jepa_pretrain.agent.planners.mcts import MCTS
from jepa_pretrain.agent.planners.mppi import MPPI
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.recorded import Recorded
from jepa_pretrain.agent.world_model import ActionSpace, Continuous, Discrete, WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import shown

FLAT = {one.__name__: one for one in (CEM, ICEM, MPPI, Gradient, Beam, Dynamic, MCTS)}
ON_LEVELS = {"Hierarchical": {"planner", "levels", "lifted"}, "Joint": {"first"}}
SPACES = {"Continuous": Continuous, "Discrete": Discrete}
LEVEL = {"planner", "horizon", "u", "near", "pace", "detour"}


def describe(planner: Planner) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A planner as plain data, and the tensors of its upper levels (`levels.0.low` ...).

    Args:
        planner: any.

    Raises:
        UserError: upper levels whose models are not of a trained hierarchy, in order.
    """
    name = type(planner).__name__
    if isinstance(planner, Joint):
        first, tensors = describe(planner.first)
        return {"class": name, "args": _fields(planner, {"first"}) | {"first": first}}, tensors
    if isinstance(planner, Hierarchical):
        if not planner.levels:
            raise UserError("a planner of levels without upper levels cannot be saved: take its lowest one")
        plain, tensors = [], {}
        for number, level in enumerate(planner.levels):
            if not isinstance(level.model, LevelModel) or level.model.number != number + 2:
                raise UserError("only levels of a trained hierarchy, from the second upwards, can be saved")
            plain.append(_fields(level, {"model", "cost", "planner", "lift", "bank", "u"}))
            plain[-1] |= {"u": dict(level.u), "planner": describe(level.planner)[0]}
            tensors |= {f"levels.{number}.{key}": one for key, one in _tensors(level).items()}
        args = {"planner": describe(planner.planner)[0], "levels": plain, "lifted": planner.lifted}
        return {"class": name, "args": args}, tensors
    if FLAT.get(name) is not type(planner):
        raise UserError(f"agents that plan with {name} cannot be saved")
    return {"class": name, "args": dataclasses.asdict(planner)}, {}


def hierarchy_of(planner: Planner) -> Hierarchical | None:
    """The search from the top down that a planner is, or begins with; None for one that plans on one level."""
    first = planner.first if isinstance(planner, Joint) else planner
    return first if isinstance(first, Hierarchical) else None


def _fields(part: Any, but: set[str]) -> dict[str, Any]:
    return {one.name: getattr(part, one.name) for one in dataclasses.fields(part) if one.name not in but}


def _tensors(level: Upper) -> dict[str, Tensor]:
    found = {"low": level.model.action.low, "high": level.model.action.high}
    if level.cost.recorded is not None:
        found["recorded"] = level.cost.recorded.actions
    return found if level.bank is None else found | {"bank": level.bank}


def planner_of(value: object, tensors: dict[str, Tensor], model: WorldModel, source: str) -> Planner:
    """What `describe` described.

    Args:
        value: plain data, which may be a stranger's.
        tensors: its tensors.
        model: the agent's; its hierarchy has the levels.
        source: where it is from, for messages.

    Raises:
        UserError: anything that does not fit.
    """
    name = value.get("class") if isinstance(value, dict) else None
    if name not in ON_LEVELS:
        return settings(value, FLAT, {}, source)
    args = value.get("args")
    if not isinstance(args, dict) or not ON_LEVELS[name] <= args.keys():
        raise UserError(f"{source}: a planner {name} has {', '.join(sorted(ON_LEVELS[name]))}, found {shown(args)}")
    if name == "Joint":
        first = planner_of(args["first"], tensors, model, source)
        if not isinstance(first, Hierarchical):
            raise UserError(f"{source}: Joint begins with a search from the top down, found {type(first).__name__}")
        rest = {key: one for key, one in args.items() if key != "first"}
        _, rest = checked({"class": "Joint", "args": rest}, {"Joint": Joint}, source)
        return refusing(source, lambda: Joint(first, **rest))
    if not isinstance(model, LevelModel) or not isinstance(args["levels"], list):
        raise UserError(f"{source}: {name} needs a world model with levels")
    if len(args["levels"]) >= len(model.hierarchy.levels):
        raise UserError(f"{source}: {len(args['levels'])} upper levels, the hierarchy has fewer")
    uppers = tuple(_upper(one, number, tensors, model, source) for number, one in enumerate(args["levels"]))
    lowest = settings(args["planner"], FLAT, {}, source)
    return refusing(source, lambda: Hierarchical(lowest, uppers, bool(args["lifted"])))


def _upper(value: object, number: int, tensors: dict[str, Tensor], model: LevelModel, source: str) -> Upper:
    if not isinstance(value, dict) or value.keys() != LEVEL or not isinstance(value["u"], dict):
        raise UserError(f"{source}: a level has {', '.join(sorted(LEVEL))}, found {shown(value)}")
    plain = {key: value[key] for key in LEVEL - {"planner", "u"}}
    if not all(one is None or isinstance(one, int | float) for one in (*plain.values(), *value["u"].values())):
        raise UserError(f"{source}: the settings and weights of a level are numbers, found {shown(value)}")
    own = {key: _finite(tensors, f"levels.{number}.{key}", source) for key in ("low", "high", "recorded", "bank")}
    if own["low"] is None or own["high"] is None:
        raise UserError(f"{source}: level {number + 2} lacks the bounds of its actions")
    level = refusing(source, lambda: model_of(model.hierarchy, number + 2, Continuous(own["low"], own["high"])))
    below = model.hierarchy.levels[number]
    expected = {"recorded": (level.action.width,), "bank": (below.grid[0] * below.grid[1], below.width)}
    for key, shape in expected.items():
        if own[key] is not None and tuple(own[key].shape[1:]) != shape:
            raise UserError(f"{source}: {key} of level {number + 2} has shape {tuple(own[key].shape)}")
    cost = Cost(level.action, recorded=None if own["recorded"] is None else Recorded(own["recorded"]))
    search = settings(value["planner"], FLAT, {}, source)
    return refusing(source, lambda: Upper(level, cost, search, level.lift, u=value["u"], bank=own["bank"], **plain))


def _finite(tensors: dict[str, Tensor], name: str, source: str) -> Tensor | None:
    found = tensors.get(name)
    if found is not None and not found.isfinite().all():
        raise UserError(f"{source}: {name} holds values that are not finite")
    return found


def space_of(value: object, source: str) -> ActionSpace:
    """An action space out of the lists of `actor.action_lists`."""
    if isinstance(value, dict) and set(value) in ({"low", "high"}, {"choices"}):
        kind = "Discrete" if "choices" in value else "Continuous"
        name, lists = checked({"class": kind, "args": value}, SPACES, source)
        return refusing(source, lambda: SPACES[name](**{key: torch.tensor(one).float() for key, one in lists.items()}))
    raise UserError(f"{source}: actions have low and high bounds or are choices, found {shown(value)}")
