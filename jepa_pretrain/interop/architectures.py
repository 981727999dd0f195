"""From the description of an encoder to the encoder: an explicit list of classes, never a path read from a file."""

from typing import Any

import torch
from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.rotary_vit import MixedViT, RotaryViT, TiledRotaryViT
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT

KNOWN = {kind.__name__: kind for kind in (ViT, RotaryViT, TiledRotaryViT, MixedViT, TimmEncoder)}


def describe(encoder: nn.Module) -> dict[str, Any]:
    """What `build` needs to make this architecture again: `{"class": ..., "args": {...}}`.

    Args:
        encoder: One of the classes in `KNOWN`.

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
    name, args = architecture.get("class"), dict(architecture["args"])
    if name not in KNOWN:
        raise UserError(f"unknown encoder class {name!r}; known: {', '.join(sorted(KNOWN))}")
    if name == "TimmEncoder":
        args["pretrained"] = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return KNOWN[name](**args)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise UserError(f"{name} refuses these arguments, {args}: {error}") from error
