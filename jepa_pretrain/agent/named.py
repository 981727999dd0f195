"""Tasks by name, in a JSON file that a person writes.

    {"tour": {"goals": [[0.75, 0.25], [0.75, 0.75], "home.png"], "near": 0.06, "horizon": 8,
              "u": {"effort": 0.01}, "v": {"steps": 1.0}, "keep_out": [{"centre": [0.5, 0.5], "radius": 0.1}]}}

Goals are vectors, in the units of the recordings, or pictures beside the file; of several all but the last are
sub-goals. Only `goals` is needed: the rest is the agent's own.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.stages import Stages
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import MIB, parse_json, read_text, shown, whole

KEYS = {"goals", "near", "horizon", "u", "v", "keep_out"}
MOST = 64  # goals and guardrails of a task


class Named(NamedTuple):
    """A task as it was written."""

    name: str
    goals: list[list[float] | str]  # vectors, or names of pictures beside the file
    near: float | None  # how near a sub-goal counts as reached
    horizon: int | None
    u: dict[str, float] | None
    v: dict[str, float] | None
    keep_out: list[dict[str, Any]]
    folder: Path


def read_named(source: str) -> Named:
    """A task out of `FILE.json:NAME`, or of `FILE.json` that holds a single one.

    Raises:
        UserError: no such file or name, an unknown key, or values of the wrong kind.
    """
    path, _, name = source.partition(".json:")
    path = Path(path + ".json" if name else source)
    tasks = parse_json(read_text(path, MIB), str(path))
    if not isinstance(tasks, dict) or not tasks:
        raise UserError(f"{path} holds no tasks: it should be an object of tasks by name")
    if not name and len(tasks) > 1:
        raise UserError(f"{path} holds several tasks: say {path}:NAME, one of {shown(sorted(tasks))}")
    name = name or next(iter(tasks))
    if name not in tasks:
        raise UserError(f"{path} holds no task {name!r}; known: {shown(sorted(tasks))}")
    return _checked(tasks[name], name, path)


def _checked(value: object, name: str, path: Path) -> Named:
    source = f"{path}: task {shown(name)}"
    if not isinstance(value, dict) or "goals" not in value or value.keys() - KEYS:
        raise UserError(
            f"{source} needs goals, and may have {', '.join(sorted(KEYS - {'goals'}))}; found {shown(value)}"
        )
    goals, rails = value["goals"], value.get("keep_out", [])
    if not isinstance(goals, list) or not 0 < len(goals) <= MOST or not all(_goal(one) for one in goals):
        raise UserError(f"{source}: goals are a list of vectors and names of pictures, found {shown(goals)}")
    if "horizon" in value and not whole(value["horizon"], 1, 1024):
        raise UserError(f"{source}: the horizon is a whole number, found {shown(value['horizon'])}")
    if "near" in value and not (_number(value["near"]) and value["near"] > 0):
        raise UserError(f"{source}: near is a positive number, found {shown(value['near'])}")
    for key in ("u", "v"):
        if key in value and not (isinstance(value[key], dict) and all(_number(one) for one in value[key].values())):
            raise UserError(f"{source}: {key} holds numbers by name, found {shown(value[key])}")
    fine = isinstance(rails, list) and len(rails) <= MOST
    if not fine or not all(isinstance(one, dict) and one.keys() == {"centre", "radius"} and _vector(one["centre"])
                           and _number(one["radius"]) and one["radius"] > 0 for one in rails):  # fmt: skip
        raise UserError(f"{source}: keep_out holds a centre and a radius each, found {shown(rails)}")
    own = (value.get(key) for key in ("near", "horizon", "u", "v"))
    return Named(name, goals, *own, rails, path.parent)


def _goal(value: object) -> bool:
    return _vector(value) or (isinstance(value, str) and bool(value))


def _vector(value: object) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST and all(_number(one) for one in value)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def staged(
    named: Named, task: Task, readout: Readout | None, near: float, picture: Callable[[Path], Tensor]
) -> tuple[Task, Stages]:
    """A named task for an agent: its task, whose goal is the first stage, and all stages.

    Args:
        named: as it was written.
        task: the agent's own, for what is not written.
        readout: makes vectors goals; None where the agent has none.
        near: squared distance of states that counts as there, where there is no readout.
        picture: a picture file to its state `(1, N, D)`.

    Raises:
        UserError: vectors or guardrails without a readout.
    """
    needed = named.keep_out or any(not isinstance(one, str) for one in named.goals)
    if needed and readout is None:
        raise UserError(f"the task {named.name} speaks in vectors, this agent has no readout: run `agent configure`")
    goals = torch.cat(
        [picture(named.folder / one) if isinstance(one, str) else readout.goals(torch.tensor([one]).float())
         for one in named.goals]
    )  # fmt: skip
    rails = tuple(
        readout.keep_out(torch.tensor(one["centre"]).float(), float(one["radius"]), f"{named.name} {number}")
        for number, one in enumerate(named.keep_out)
    )
    own = replace(task, goal=goals[:1], horizon=named.horizon or task.horizon, u=task.u if named.u is None else named.u,
                  v=task.v if named.v is None else named.v, guardrails=(*task.guardrails, *rails))  # fmt: skip
    width = named.near or (near if readout is None else 2 * float(readout.error))
    return own, Stages(goals, width, readout)
