"""From the description of an encoder to the encoder: an explicit list of classes, never a path read from a file."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.abstraction import MacroActions, StateEncoder
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels, SmallConv
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.latent import Discrete, Gaussian, Sparse
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.rotary_vit import MixedViT, RotaryViT, TiledRotaryViT
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.models.world import World
from jepa_pretrain.untrusted import shown, whole

ENCODERS = (
    ViT,
    RotaryViT,
    TiledRotaryViT,
    MixedViT,
    TimmEncoder,
    SmallConv,
    Pixels,
)  # of pictures, clips, a hierarchy's moments
FRAMES = {one.__name__: one for one in ENCODERS}
KNOWN = FRAMES | {"Hierarchy": Hierarchy, "World": World}
MODULES = (Level, StateEncoder, MacroActions, TemporalPredictor, ResidualMLP, Discrete, Gaussian, Sparse)
PARTS = {one.__name__: one for one in MODULES}
NESTED: dict[str, dict[str, tuple[str, ...]]] = {  # arguments that are modules themselves, and of which classes
    "Hierarchy": {"encoder": tuple(FRAMES), "levels": ("Level",)},
    "World": {"encoder": tuple(FRAMES), "dynamics": ("ResidualMLP", "TemporalPredictor")},
    "Level": {
        "predictor": ("TemporalPredictor",),
        "encoder": ("StateEncoder",),
        "macro": ("MacroActions",),
        "latent": ("Discrete", "Gaussian", "Sparse"),
    },
}
LEVELS = 16
Shapes = dict[str, Size]  # of tensors, by name
SIDE = 2048  # pixels of a picture that an encoder may take; a timm model is tried on one of that size when it is made
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


def build(architecture: dict[str, Any], weights: Shapes, source: str) -> nn.Module:
    """The encoder that `architecture` describes, with fresh weights drawn from seed 0.

    The description may come from a stranger's file, so nothing is downloaded, no class is imported by name, and what
    it describes is compared with the weights that came with it before any memory is taken.

    Args:
        architecture: `{"class": name, "args": {...}}` as written by `describe`.
        weights: The shapes of the weights that it has to fit.
        source: Where both come from, for the message.

    Raises:
        UserError: An unknown class, arguments that the class refuses, or weights of another architecture.
    """
    if not isinstance(architecture, dict) or not isinstance(architecture.get("args"), dict):
        raise UserError('the architecture must read {"class": name, "args": {...}}; export the encoder again')
    architecture = _checked(architecture, tuple(KNOWN))
    with torch.device("meta"):  # the shapes without their memory
        check_shapes({key: one.shape for key, one in _make(architecture).state_dict().items()}, weights, source)
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
    if not isinstance(value, dict):
        return value
    name, args = value["class"], {key: _module(one) for key, one in value["args"].items()}
    try:
        return (KNOWN | PARTS)[name](**args)
    except REFUSED as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{name} refuses these arguments, {shown(value['args'], 200)}: {reason[0]}") from error


def _some(names: list[str]) -> str:
    short = [shown(name, 100).strip("'") for name in names[:5]]
    return (", ".join(short) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "none"


def _count(most: int) -> Callable[[object], bool]:
    return lambda value: whole(value, 1, most)


def _number(low: float, high: float) -> Callable[[object], bool]:
    """Refuses NaN as well, which is not between any two numbers."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _three(low: float, high: float) -> Callable[[object], bool]:
    one = _number(low, high)
    return lambda value: isinstance(value, list | tuple) and len(value) == 3 and all(map(one, value))


def _several(one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) <= WIDE and all(map(one, value))


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _place(value: object) -> bool:
    """Rows and columns of a state's tokens."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(whole(one, 1, SIDE) for one in value)


def _or_none(allowed: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or allowed(value)


def _from_zero(most: int) -> Callable[[object], bool]:
    return lambda value: whole(value, 0, most)


WIDE, DEEP, WEIGHT = 1 << 16, 512, _number(0, 1e6)
STATISTICS = {"mean": _three(-10, 10), "std": _three(1e-6, 100)}
VIT = (
    STATISTICS
    | {key: _count(SIDE) for key in ("image_size", "patch", "frames", "tubelet")}
    | {"depth": _count(DEEP), "width": _count(1 << 16), "heads": _count(1 << 16), "mlp_ratio": _number(1 / 64, 64)}
)
ALLOWED: dict[str, dict[str, Callable[[object], bool]]] = {  # what an argument read from a file may be
    "ViT": VIT,
    "RotaryViT": VIT,
    "TiledRotaryViT": VIT,
    "MixedViT": VIT,
    "TimmEncoder": STATISTICS
    | {"image_size": _count(SIDE), "name": lambda value: isinstance(value, str) and 0 < len(value) < 200}
    | {"cifar_stem": _flag},
    "Hierarchy": {"frames": _count(WIDE), "tubelet": _count(WIDE), "reads": _from_zero(LEVELS)},
    "SmallConv": STATISTICS | {key: _count(SIDE) for key in ("image_size", "width")},
    "Pixels": STATISTICS | {key: _count(SIDE) for key in ("image_size", "side")},
    "World": {key: _count(WIDE) for key in ("width", "block")}
    | {"frozen": _flag, "hidden": _several(_count(WIDE))}
    | {key: _several(_number(-1e9, 1e9)) for key in ("low", "high")},
    "ResidualMLP": {key: _count(WIDE) for key in ("state_width", "hidden")}
    | {key: _from_zero(WIDE) for key in ("actions", "latent")}
    | {"depth": _from_zero(DEEP)},
    "Level": {"stride": _count(WIDE), "moments": _or_none(_count(WIDE))},
    "TemporalPredictor": {key: _count(WIDE) for key in ("state_width", "width", "heads", "context")}
    | {"grid": _place, "residual": _flag, "depth": _from_zero(DEEP)}
    | {key: _from_zero(WIDE) for key in ("actions", "latent")},
    "StateEncoder": {key: _count(WIDE) for key in ("below", "width", "window", "heads")}
    | {"grid_below": _place, "grid": _or_none(_place), "depth": _from_zero(DEEP)}
    | {"hidden": _or_none(_count(WIDE)), "batch_norm": _flag, "join": _flag},
    "MacroActions": {key: _count(WIDE) for key in ("inputs", "length", "width", "hidden", "heads")}
    | {"of_states": _flag, "depth": _from_zero(DEEP), "noise": WEIGHT},
    "Discrete": {key: _count(WIDE) for key in ("state_width", "values", "hidden")} | {"weight": WEIGHT},
    "Gaussian": {key: _count(WIDE) for key in ("state_width", "width", "hidden")} | {"weight": WEIGHT},
    "Sparse": {key: _count(WIDE) for key in ("state_width", "width", "hidden")} | {"weight": WEIGHT, "noise": WEIGHT},
}
