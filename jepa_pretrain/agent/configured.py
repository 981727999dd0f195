"""What an agent's folder keeps of its configurator and its readout."""

import dataclasses
from typing import Any

from torch import Tensor

from jepa_pretrain.agent.configurator import Configurator, Rules, Thrift
from jepa_pretrain.agent.plain import NUMBERS, module_of, settings, under
from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.agent.searches import FLAT, describe
from jepa_pretrain.agent.surprise import LEVELS, Usual
from jepa_pretrain.agent.world_model import WorldModel
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.described import described
from jepa_pretrain.untrusted import shown, whole

RULES, NETWORKS = {"Rules": Rules}, {"Thrift": Thrift}


def configured(found: Configurator) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A configurator as plain data and tensors.

    Args:
        found: chooses by `Rules` or `Thrift`.

    Raises:
        UserError: another kind of chooser.
    """
    chooser, tensors = found.chooser, {f"usual.{name}": one for name, one in found.usual._asdict().items()}
    if isinstance(chooser, Thrift):
        told = described(chooser)
        tensors |= {f"chooser.{key}": one for key, one in chooser.state_dict().items()}
    elif isinstance(chooser, Rules):
        told = {"class": "Rules", "args": dataclasses.asdict(chooser)}
    else:
        raise UserError(f"a configurator that chooses by {type(chooser).__name__} cannot be saved")
    return {"chooser": told, "little": describe(found.little)[0], "horizon": found.horizon}, tensors


def configurator_of(value: object, tensors: dict[str, Tensor], source: str) -> Configurator | None:
    """What `configured` made plain; None where there is none.

    Args:
        value: plain data, which may be a stranger's.
        tensors: its tensors.
        source: where it is from, for messages.

    Raises:
        UserError: anything that does not fit.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"chooser", "little", "horizon"}:
        raise UserError(f"{source}: a configurator has chooser, little and horizon, found {shown(value)}")
    usual = {name: tensors.get(f"usual.{name}") for name in Usual._fields}
    shaped = {name: None if one is None else tuple(one.shape) for name, one in usual.items()}
    if shaped != {"errors": (LEVELS,), "step": (), "distance": ()} or not whole(value["horizon"], 1, NUMBERS):
        raise UserError(f"{source}: the configurator's horizon, or what it holds usual, is missing or damaged")
    told, weights = value["chooser"], under(tensors, "chooser.")
    by_hand = isinstance(told, dict) and told.get("class") in RULES
    chooser = settings(told, RULES, {}, source) if by_hand else module_of(told, NETWORKS, weights, source)
    return Configurator(chooser, Usual(**usual), settings(value["little"], FLAT, {}, source), value["horizon"])


def readout_of(tensors: dict[str, Tensor], model: WorldModel, source: str) -> Readout | None:
    """The readout of a folder, None where it has none; arguments and errors as in `configurator_of`."""
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
