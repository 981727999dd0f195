"""An agent as a folder: `agent.json`, `agent.safetensors`, and each world model as an export of its own. No pickle."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jepa_pretrain.agent.actor import Policy
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.configurator import Configurator, Rules, Thrift
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import EnergyAfter, EnergyToCome, StepsToGo
from jepa_pretrain.agent.guardrails import HalfSpace, KeepOut
from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.agent.memory import Memory
from jepa_pretrain.agent.planners.beam import Beam
from jepa_pretrain.agent.planners.cem import CEM, ICEM
from jepa_pretrain.agent.planners.dynamic import Dynamic
from jepa_pretrain.agent.planners.gradient import Gradient
from jepa_pretrain.agent.planners.mcts import MCTS
from jepa_pretrain.agent.planners.mppi import MPPI
from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.surprise import LEVELS, Usual
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Ensemble
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import check_shapes
from jepa_pretrain.interop.export import write
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.interop.placing import placed_folder
from jepa_pretrain.interop.weights import fill, shapes
from jepa_pretrain.models.described import described
from jepa_pretrain.models.world import World
from jepa_pretrain.untrusted import MIB, parse_json, printable, read_text, shown, whole

FORMAT = 1
CRITICS = {one.__name__: one for one in (StepsToGo, EnergyAfter, EnergyToCome)}
POLICIES = {"Policy": Policy}
PLANNERS = {one.__name__: one for one in (CEM, ICEM, MPPI, Gradient, Beam, Dynamic, MCTS)}
RULES, NETWORKS = {"Rules": Rules}, {"Thrift": Thrift}
GUARDRAILS = {one.__name__: one for one in (HalfSpace, KeepOut)}
MEMBERS = 64  # world models of an ensemble, at most
FILES = {"agent.json", "agent.safetensors"} | {f"world-{number}" for number in range(MEMBERS)}
NUMBERS = 1 << 16  # the largest whole number and the longest list in an agent.json
REFUSED = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, ArithmeticError)


def save_agent(agent: Agent, folder: str | Path) -> Path:
    """Write an agent; the folder appears complete or not at all. Its goal and what it remembers are not kept.

    Args:
        agent: its world model is a `Learned`, or an `Ensemble` of them.
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
    model = _model(folder, plain["worlds"])
    critics = {
        name: _module(one, CRITICS, _under(tensors, f"critics.{name}."), source)
        for name, one in plain["critics"].items()
    }
    policy = plain["policy"] and _module(plain["policy"], POLICIES, _under(tensors, "policy."), source)
    _check_fit(model, critics, source)
    return _refusing(
        source,
        lambda: Agent(
            model,
            Cost(model.action, critics),
            _settings(plain["planner"], PLANNERS, {}, source),
            _task(plain["task"], tensors, torch.zeros(1, model.grid_tokens, model.width), source),
            policy or None,
            bool(plain["reactive"]),
            Memory(plain["memory"]) if plain["memory"] is not None else None,
            plain["seed"],
            configurator=_configurator(plain.get("configurator"), _under(tensors, "configurator."), source),
            readout=_readout(_under(tensors, "readout."), model, source),
        ),
    )


def _worlds(agent: Agent) -> list[World]:
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
    if type(agent.planner).__name__ not in PLANNERS:
        raise UserError(f"agents that plan with {type(agent.planner).__name__} cannot be saved")
    task = {"horizon": agent.task.horizon, "u": dict(agent.task.u), "v": dict(agent.task.v), "guardrails": guardrails}
    task |= {"risk": agent.task.risk, "samples": agent.task.samples}
    plain = {
        "format": FORMAT,
        "worlds": len(_worlds(agent)),
        "critics": {name: described(one) for name, one in critics.items()},
        "policy": described(agent.policy),
        "planner": {"class": type(agent.planner).__name__, "args": dataclasses.asdict(agent.planner)},
        "task": task,
        "reactive": agent.reactive,
        "memory": None if agent.memory is None else agent.memory.capacity,
        "seed": agent.seed,
    }
    if agent.configurator is not None:
        plain["configurator"], parts = _configured(agent.configurator)
        tensors |= {f"configurator.{key}": one for key, one in parts.items()}
    if agent.readout is not None:
        tensors |= {f"readout.{one.name}": getattr(agent.readout, one.name) for one in dataclasses.fields(Readout)}
    return plain, {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}


def _configured(found: Configurator) -> tuple[dict[str, Any], dict[str, Tensor]]:
    chooser, tensors = found.chooser, {f"usual.{name}": one for name, one in found.usual._asdict().items()}
    if isinstance(chooser, Thrift):
        told = described(chooser)
        tensors |= {f"chooser.{key}": one for key, one in chooser.state_dict().items()}
    elif isinstance(chooser, Rules):
        told = {"class": "Rules", "args": dataclasses.asdict(chooser)}
    else:
        raise UserError(f"a configurator that chooses by {type(chooser).__name__} cannot be saved")
    little = {"class": type(found.little).__name__, "args": dataclasses.asdict(found.little)}
    return {"chooser": told, "little": little, "horizon": found.horizon}, tensors


def _configurator(value: object, tensors: dict[str, Tensor], source: str) -> Configurator | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"chooser", "little", "horizon"}:
        raise UserError(f"{source}: a configurator has chooser, little and horizon, found {shown(value)}")
    usual = {name: tensors.get(f"usual.{name}") for name in Usual._fields}
    shaped = {name: None if one is None else tuple(one.shape) for name, one in usual.items()}
    if shaped != {"errors": (LEVELS,), "step": (), "distance": ()} or not whole(value["horizon"], 1, NUMBERS):
        raise UserError(f"{source}: the configurator's horizon, or what it holds usual, is missing or damaged")
    told, weights = value["chooser"], _under(tensors, "chooser.")
    by_hand = isinstance(told, dict) and told.get("class") in RULES
    chooser = _settings(told, RULES, {}, source) if by_hand else _module(told, NETWORKS, weights, source)
    return Configurator(chooser, Usual(**usual), _settings(value["little"], PLANNERS, {}, source), value["horizon"])


def _readout(tensors: dict[str, Tensor], model: Learned | Ensemble, source: str) -> Readout | None:
    if not tensors:
        return None
    if tensors.keys() != {one.name for one in dataclasses.fields(Readout)}:
        raise UserError(f"{source}: the readout is incomplete; run `agent configure` again")
    found, size = Readout(**tensors), model.grid_tokens * model.width
    width = found.weight.shape[-1]
    shaped = (found.mean.shape, found.weight.shape, found.bias.shape, found.bank.shape[1:], found.error.shape)
    if shaped != ((size,), (size, width), (width,), (model.grid_tokens, model.width), ()) or not len(found.bank):
        raise UserError(f"{source}: the readout does not fit the world model; run `agent configure` again")
    return found


def _model(folder: Path, count: int) -> Learned | Ensemble:
    models = []
    for number in range(count):
        world = FrozenEncoder.load(folder / f"world-{number}").encoder
        if not isinstance(world, World):
            raise UserError(f"{folder}/world-{number} holds a {type(world).__name__}, which is no world model")
        models.append(Learned(world))
    return models[0] if count == 1 else Ensemble(models)


def _module(value: object, known: dict[str, type[nn.Module]], weights: dict[str, Tensor], source: str) -> nn.Module:
    """A critic or policy with its weights; compared with them before any memory is taken."""
    name, args = _checked(value, known, source)
    with torch.device("meta"):
        check_shapes(shapes(_refusing(source, lambda: known[name](**args)).state_dict()), shapes(weights), source)
    module = _refusing(source, lambda: known[name](**args))
    fill(module, weights, source)
    return module.eval()


def _settings(value: object, known: dict[str, type], tensors: dict[str, Tensor], source: str) -> Any:
    name, args = _checked(value, known, source)
    return _refusing(source, lambda: known[name](**args, **tensors))


def _task(value: object, tensors: dict[str, Tensor], goal: Tensor, source: str) -> Task:
    if not isinstance(value, dict) or value.keys() - {"risk", "samples"} != {"horizon", "u", "v", "guardrails"}:
        raise UserError(f"{source}: a task has horizon, u, v and guardrails, found {shown(value)}")
    if not whole(value["horizon"], 1, NUMBERS) or not isinstance(value["guardrails"], list):
        raise UserError(f"{source}: the task's horizon or guardrails are of the wrong kind")
    for weights in (value["u"], value["v"]):
        if not isinstance(weights, dict) or not all(isinstance(one, int | float) for one in weights.values()):
            raise UserError(f"{source}: weights are numbers by name, found {shown(weights)}")
    guardrails = tuple(
        _settings(one, GUARDRAILS, _under(tensors, f"guardrails.{number}."), source)
        for number, one in enumerate(value["guardrails"])
    )
    risk, samples = value.get("risk", 0.0), value.get("samples", Task.samples)  # the first agents had neither
    if not isinstance(risk, int | float) or not whole(samples, 1, NUMBERS):
        raise UserError(f"{source}: the task's risk or samples are of the wrong kind")
    return Task(goal, value["horizon"], value["u"], value["v"], guardrails, risk, samples)


def _checked(value: object, known: dict[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """Class and arguments of a part, all of them plain and of bounded size."""
    if not isinstance(value, dict) or value.keys() != {"class", "args"} or not isinstance(value["args"], dict):
        raise UserError(f"{source}: expected a class and its args, found {shown(value)}")
    if not isinstance(value["class"], str) or value["class"] not in known:
        raise UserError(f"{source}: unknown class {shown(value['class'])}; known: {', '.join(sorted(known))}")
    for key, one in value["args"].items():
        if not _bounded(one):
            raise UserError(f"{source}: {value['class']} refuses {shown(key)}: {shown(one)}")
    return value["class"], value["args"]


def _bounded(value: object, depth: int = 0) -> bool:
    if isinstance(value, list):
        return depth < 2 and len(value) <= NUMBERS and all(_bounded(one, depth + 1) for one in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return -NUMBERS <= value <= NUMBERS
    return value is None or isinstance(value, str | bool | float)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _check_fit(model: Learned | Ensemble, critics: dict[str, nn.Module], source: str) -> None:
    for name, one in critics.items():
        found, expected = (one.config["tokens"], one.config["width"]), (model.grid_tokens, model.width)
        if found != expected:
            raise UserError(f"{source}: critic {shown(name)} reads states {found}, the world model's are {expected}")


def _refusing(source: str, make: Any) -> Any:
    """What `make` makes, with a plain word where a class refuses its arguments."""
    try:
        return make()
    except REFUSED as error:
        raise UserError(f"{source}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}") from error
