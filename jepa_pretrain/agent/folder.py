"""An agent as a folder: `agent.json`, `agent.safetensors`, and each world model as an export of its own. No pickle."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jepa_pretrain.agent.actor import Policy, action_lists
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.configured import configurator_of, configured, readout_of
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import EnergyAfter, EnergyToCome, StepsToGo
from jepa_pretrain.agent.guardrails import HalfSpace, KeepOut
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.levels import LevelModel, model_of
from jepa_pretrain.agent.memory import Memory
from jepa_pretrain.agent.plain import NUMBERS, module_of, refusing, settings, under
from jepa_pretrain.agent.quasimetric import Quasimetric
from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.searches import describe, planner_of, space_of
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Ensemble
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.export import write
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.interop.placing import placed_folder
from jepa_pretrain.models.described import described
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.world import World
from jepa_pretrain.untrusted import MIB, parse_json, printable, read_text, shown, whole

FORMAT = 1
CRITICS = {one.__name__: one for one in (StepsToGo, Quasimetric, EnergyAfter, EnergyToCome)}
POLICIES = {"Policy": Policy}
GUARDRAILS = {one.__name__: one for one in (HalfSpace, KeepOut)}
MEMBERS = 64  # world models of an ensemble, at most
FILES = {"agent.json", "agent.safetensors"} | {f"world-{number}" for number in range(MEMBERS)}


def save_agent(agent: Agent, folder: str | Path) -> Path:
    """Write an agent; the folder appears complete or not at all. Its goal and what it remembers are not kept.

    Args:
        agent: its world model is a `Learned`, an `Ensemble` of them, or the lowest level of a trained hierarchy.
        folder: where; an agent that is there is replaced, anything else is refused.

    Returns:
        The folder.

    Raises:
        UserError: another kind of world model, a folder that holds something else, or that cannot be written.
    """
    folder, (plain, tensors) = Path(folder), _content(agent)
    with placed_folder(folder, FILES, "agent") as fresh:
        for number, world in enumerate(_worlds(agent)):
            write(world, fresh / f"world-{number}", {})
        save_file(tensors, fresh / "agent.safetensors", metadata={"format": "pt"})
        (fresh / "agent.json").write_text(json.dumps(plain, indent=2) + "\n")
    return folder


def load_agent(folder: str | Path) -> Agent:
    """Load an agent, on the CPU; give it a goal with `pursue`, then ask it to `act`.

    Args:
        folder: as `save_agent` left it.

    Raises:
        UserError: no agent there, a damaged or strange file, or parts that do not fit together.
    """
    folder = Path(folder)
    if not (folder / "agent.json").is_file():
        raise UserError(
            f"{folder} is no agent: no agent.json there (`jepa-pretrain agent train` makes a world model only)"
        )
    source = str(folder / "agent.json")
    plain = parse_json(read_text(folder / "agent.json", MIB), source)
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise UserError(f"{source} is not of agent format {FORMAT}; it may be newer than this package, or no agent")
    absent = {"worlds", "critics", "policy", "planner", "task", "reactive", "memory", "seed"} - plain.keys()
    if absent:
        raise UserError(f"{source} lacks {', '.join(sorted(absent))}; save the agent again")
    if not whole(plain["worlds"], 1, MEMBERS) or not isinstance(plain["critics"], dict):
        raise UserError(f"{source} is damaged: worlds or critics are of the wrong kind")
    try:
        tensors = load_file(folder / "agent.safetensors")
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}/agent.safetensors is missing or damaged: {printable(str(error))[:200]}") from error
    model = _model(folder, plain["worlds"], plain.get("action"))
    critics = {
        name: module_of(one, CRITICS, under(tensors, f"critics.{name}."), source)
        for name, one in plain["critics"].items()
    }
    policy = plain["policy"] and module_of(plain["policy"], POLICIES, under(tensors, "policy."), source)
    _check_fit(model, critics, source)
    return refusing(
        source,
        lambda: Agent(
            model,
            Cost(model.action, critics),
            planner_of(plain["planner"], under(tensors, "planner."), model, source),
            _task(plain["task"], tensors, torch.zeros(1, model.grid_tokens, model.width), source),
            policy or None,
            bool(plain["reactive"]),
            Memory(plain["memory"]) if plain["memory"] is not None else None,
            plain["seed"],
            configurator=configurator_of(plain.get("configurator"), under(tensors, "configurator."), source),
            readout=readout_of(under(tensors, "readout."), model, source),
        ),
    )


def _worlds(agent: Agent) -> list[World | Hierarchy]:
    if isinstance(agent.model, LevelModel) and agent.model.number == 1:
        return [agent.model.hierarchy]
    models = list(agent.model.models) if isinstance(agent.model, Ensemble) else [agent.model]
    if not all(isinstance(one, Learned) for one in models):
        raise UserError("only agents with trained world models (`Learned`, or an `Ensemble` of them) can be saved")
    return [one.world for one in models]


def _content(agent: Agent) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What goes into `agent.json`, and what into `agent.safetensors`."""
    critics = dict(agent.cost.critics)
    tensors = {f"critics.{name}.{key}": one for name, part in critics.items() for key, one in part.state_dict().items()}
    if agent.policy is not None:
        tensors |= {f"policy.{key}": one for key, one in agent.policy.state_dict().items()}
    guardrails = []
    for number, one in enumerate(agent.task.guardrails):
        fields = {key.name: getattr(one, key.name) for key in dataclasses.fields(one)}
        tensors |= {f"guardrails.{number}.{key}": value for key, value in fields.items() if isinstance(value, Tensor)}
        simple = {key: value for key, value in fields.items() if not isinstance(value, Tensor)}
        guardrails.append({"class": type(one).__name__, "args": simple})
    planner, parts = describe(agent.planner)
    tensors |= {f"planner.{key}": one for key, one in parts.items()}
    task = {"horizon": agent.task.horizon, "u": dict(agent.task.u), "v": dict(agent.task.v), "guardrails": guardrails}
    task |= {"risk": agent.task.risk, "samples": agent.task.samples}
    plain = {
        "format": FORMAT,
        "worlds": len(_worlds(agent)),
        "critics": {name: described(one) for name, one in critics.items()},
        "policy": described(agent.policy),
        "planner": planner,
        "task": task,
        "reactive": agent.reactive,
        "memory": None if agent.memory is None else agent.memory.capacity,
        "seed": agent.seed,
    }
    if agent.configurator is not None:
        plain["configurator"], parts = configured(agent.configurator)
        tensors |= {f"configurator.{key}": one for key, one in parts.items()}
    if agent.readout is not None:
        tensors |= {f"readout.{one.name}": getattr(agent.readout, one.name) for one in dataclasses.fields(Readout)}
    if isinstance(agent.model, LevelModel):  # a `World` knows its own
        plain["action"] = action_lists(agent.model.action)
    return plain, {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}


def _model(folder: Path, count: int, action: object) -> Learned | Ensemble | LevelModel:
    models = []
    for number in range(count):
        world = FrozenEncoder.load(folder / f"world-{number}").encoder
        if isinstance(world, Hierarchy) and count == 1:
            source = str(folder / "agent.json")
            return refusing(source, partial(model_of, world, 1, space_of(action, source)))
        if not isinstance(world, World):
            raise UserError(f"{folder}/world-{number} holds a {type(world).__name__}, which is no world model")
        models.append(Learned(world))
    return models[0] if count == 1 else Ensemble(models)


def _task(value: object, tensors: dict[str, Tensor], goal: Tensor, source: str) -> Task:
    if not isinstance(value, dict) or value.keys() - {"risk", "samples"} != {"horizon", "u", "v", "guardrails"}:
        raise UserError(f"{source}: a task has horizon, u, v and guardrails, found {shown(value)}")
    if not whole(value["horizon"], 1, NUMBERS) or not isinstance(value["guardrails"], list):
        raise UserError(f"{source}: the task's horizon or guardrails are of the wrong kind")
    for weights in (value["u"], value["v"]):
        if not isinstance(weights, dict) or not all(isinstance(one, int | float) for one in weights.values()):
            raise UserError(f"{source}: weights are numbers by name, found {shown(weights)}")
    guardrails = tuple(
        settings(one, GUARDRAILS, under(tensors, f"guardrails.{number}."), source)
        for number, one in enumerate(value["guardrails"])
    )
    risk, samples = value.get("risk", 0.0), value.get("samples", Task.samples)  # the first agents had neither
    if not isinstance(risk, int | float) or not whole(samples, 1, NUMBERS):
        raise UserError(f"{source}: the task's risk or samples are of the wrong kind")
    return Task(goal, value["horizon"], value["u"], value["v"], guardrails, risk, samples)


def _check_fit(model: Learned | Ensemble | LevelModel, critics: dict[str, nn.Module], source: str) -> None:
    for name, one in critics.items():
        found, expected = (one.config["tokens"], one.config["width"]), (model.grid_tokens, model.width)
        if found != expected:
            raise UserError(f"{source}: critic {shown(name)} reads states {found}, the world model's are {expected}")
