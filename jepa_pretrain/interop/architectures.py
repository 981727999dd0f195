"""From the description of an encoder to the encoder: an explicit list of classes, never a path read from a file."""

from typing import Any

import torch
from torch import Size, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.allowed import ALLOWED, LEVELS
from jepa_pretrain.models.abstraction import MacroActions, StateEncoder
from jepa_pretrain.models.action_predictor import ActionPredictor
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels, SmallConv
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.latent import Discrete, Gaussian, Sparse
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.multilevel import MultilevelPredictor, MultilevelViT
from jepa_pretrain.models.predictor import (
    DensePredictor,
    DenseRotaryPredictor,
    MaskedPredictor,
    RotaryPredictor,
    TiledRotaryPredictor,
)
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.models.rotary_vit import MixedViT, RotaryViT, TiledRotaryViT
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.models.world import World
from jepa_pretrain.untrusted import shown

# of pictures, clips, a hierarchy's moments
ENCODERS = (ViT, RotaryViT, TiledRotaryViT, MixedViT, MultilevelViT, TimmEncoder, SmallConv, Pixels)
FRAMES = {one.__name__: one for one in ENCODERS}
KNOWN = FRAMES | {"Hierarchy": Hierarchy, "World": World}
PREDICTORS = (MaskedPredictor, RotaryPredictor, TiledRotaryPredictor, DensePredictor, DenseRotaryPredictor)
PREDICTORS += (MultilevelPredictor, ActionPredictor)
HEADS = {one.__name__: one for one in (*PREDICTORS, Projector)}  # what stands on an encoder in training
MODULES = (Level, StateEncoder, MacroActions, TemporalPredictor, ResidualMLP, Discrete, Gaussian, Sparse)
PARTS = {one.__name__: one for one in MODULES}
NESTED: dict[str, dict[str, tuple[str, ...]]] = {  # arguments that are modules themselves, and of which classes
    "Hierarchy": {"encoder": (*FRAMES, "World"), "levels": ("Level",)},
    "World": {"encoder": tuple(FRAMES), "dynamics": ("ResidualMLP", "TemporalPredictor")},
    "Level": {
        "predictor": ("TemporalPredictor", "ResidualMLP"),
        "encoder": ("StateEncoder",),
        "macro": ("MacroActions",),
        "latent": ("Discrete", "Gaussian", "Sparse"),
    },
}
Shapes = dict[str, Size]  # of tensors, by name
REFUSED = (TypeError, ValueError, RuntimeError, AssertionError, LookupError, AttributeError, ArithmeticError)


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


def build(
    architecture: dict[str, Any], weights: Shapes, source: str, among: tuple[str, ...] = tuple(KNOWN)
) -> nn.Module:
    """The encoder, or predictor or projector, that `architecture` describes, with fresh weights drawn from seed 0.

    The description may come from a stranger's file, so nothing is downloaded, no class is imported by name, and what
    it describes is compared with the weights that came with it before any memory is taken.

    Args:
        architecture: `{"class": name, "args": {...}}` as written by `describe`.
        weights: The shapes of the weights that it has to fit.
        source: Where both come from, for the message.
        among: The classes that it may be of; an encoder's by default.

    Raises:
        UserError: An unknown class, arguments that the class refuses, or weights of another architecture.
    """
    if not isinstance(architecture, dict) or not isinstance(architecture.get("args"), dict):
        raise UserError('the architecture must read {"class": name, "args": {...}}; export the encoder again')
    try:
        architecture = _checked(architecture, among)
        with torch.device("meta"):  # the shapes without their memory
            own = {key: one.shape for key, one in _make(architecture).state_dict().items()}
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    check_shapes(own, weights, source)
    return _make(architecture)


def _checked(architecture: object, among: tuple[str, ...]) -> dict[str, Any]:
    """The same, with every argument looked at, those of the modules inside too."""
    if not isinstance(architecture, dict) or not isinstance(architecture.get("args"), dict):
        raise UserError(f"expected {' or '.join(among)} as a class and its args, found {shown(architecture)}")
    name, args = architecture.get("class"), dict(architecture["args"])
    if not isinstance(name, str) or name not in among:
        raise UserError(f"unknown encoder class {shown(name)}; known: {', '.join(sorted(among))}")
    args.pop("pretrained", None)
    for key, value in args.items():
        if key in NESTED.get(name, {}):
            args[key] = _nested(value, NESTED[name][key], several=key == "levels")
        elif key not in ALLOWED[name] or not ALLOWED[name][key](value):
            raise UserError(f"{name} refuses these arguments, {shown(args, 200)}: {key} cannot be {shown(value)}")
    return {"class": name, "args": args}


def _nested(value: object, among: tuple[str, ...], several: bool) -> Any:
    """A module inside another: absent, one, or a list."""
    if not several:
        return None if value is None else _checked(value, among)
    if not isinstance(value, list) or not 0 < len(value) <= LEVELS:
        raise UserError(f"expected 1 to {LEVELS} levels, found {shown(value)}")
    return [_checked(one, among) for one in value]


def check_shapes(own: Shapes, weights: Shapes, source: str) -> None:
    """Every tensor of both sides must match in name and shape.

    Args:
        own: What the encoder has.
        weights: What there is to fill it.
        source: Where the weights come from, for the message.

    Raises:
        UserError: Names missing, names left over, or shapes that differ; it says which.
    """
    missing, left_over = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or left_over:
        raise UserError(f"{source}: weights missing: {_some(missing)}; not of this architecture: {_some(left_over)}")
    for name, shape in own.items():
        if shape != weights[name]:
            expected, found = tuple(shape), tuple(weights[name])
            raise UserError(f"{source}: {name} should have shape {expected}, found {found}; wrong config for it?")


def _make(architecture: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _module(architecture)


def _module(value: Any) -> Any:
    """A plain value as it is, a description as its module, the innermost ones first."""
    if isinstance(value, list):
        return [_module(one) for one in value]
    if not isinstance(value, dict) or "class" not in value:
        return value
    name, args = value["class"], {key: _module(one) for key, one in value["args"].items()}
    try:
        return (KNOWN | PARTS | HEADS)[name](**args)
    except REFUSED as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{name} refuses these arguments, {shown(value['args'], 200)}: {reason[0]}") from error


def _some(names: list[str]) -> str:
    short = [shown(name, 100).strip("'") for name in names[:5]]
    return (", ".join(short) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "none"
