"""From the description of an encoder to the encoder: an explicit list of classes, never a path read from a file."""

from typing import Any

import torch
from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.abstraction import MacroActions, StateEncoder
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.latent import Discrete, Gaussian, Sparse
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT

KNOWN = {"ViT": ViT, "TimmEncoder": TimmEncoder, "Hierarchy": Hierarchy}
PARTS = {
    kind.__name__: kind for kind in (Level, StateEncoder, MacroActions, TemporalPredictor, Discrete, Gaussian, Sparse)
}


def describe(encoder: nn.Module) -> dict[str, Any]:
    """What `build` needs to make this architecture again: `{"class": ..., "args": {...}}`.

    Args:
        encoder: One of the classes in `KNOWN`; what it is made of is described in its `config`.

    Raises:
        UserError: The encoder is of another class.
    """
    name = type(encoder).__name__
    if KNOWN.get(name) is not type(encoder):
        raise UserError(f"cannot export an encoder of class {name}; known: {', '.join(sorted(KNOWN))}")
    return {"class": name, "args": dict(encoder.config)}


def build(architecture: dict[str, Any]) -> nn.Module:
    """The encoder that `architecture` describes, with fresh weights drawn from seed 0.

    The description may come from a stranger's file, so nothing is downloaded and no class is imported by name.

    Args:
        architecture: `{"class": name, "args": {...}}` as written by `describe`.

    Raises:
        UserError: An unknown class, or arguments that the class refuses.
    """
    if not isinstance(architecture, dict) or not isinstance(architecture.get("args"), dict):
        raise UserError('the architecture must read {"class": name, "args": {...}}; export the encoder again')
    if architecture.get("class") not in KNOWN:
        raise UserError(f"unknown encoder class {architecture.get('class')!r}; known: {', '.join(sorted(KNOWN))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _make(architecture)


def _make(value: Any) -> Any:
    """A plain value as it is; a description as the module, the innermost ones first."""
    if isinstance(value, list):
        return [_make(one) for one in value]
    if not isinstance(value, dict) or value.keys() != {"class", "args"}:
        return value
    name, known = value["class"], KNOWN | PARTS
    if name not in known or not isinstance(value["args"], dict):
        raise UserError(f"unknown class {name!r}; known: {', '.join(sorted(known))}")
    args = {key: _make(one) for key, one in value["args"].items()}
    if name == "TimmEncoder":
        args["pretrained"] = False
    try:
        return known[name](**args)
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        raise UserError(f"{name} refuses these arguments, {args}: {error}") from error
