"""What the arguments of an architecture may be where they are read from a stranger's file: numbers within bounds."""

from collections.abc import Callable

from jepa_pretrain.untrusted import whole

LEVELS = 16
SIDE = 2048  # pixels of a picture that an encoder may take; a timm model is tried on one of that size when it is made
PREDICTORS = (
    "MaskedPredictor", "RotaryPredictor", "TiledRotaryPredictor", "DensePredictor", "DenseRotaryPredictor",
    "MultilevelPredictor", "ActionPredictor",
)  # fmt: skip


def _count(most: int) -> Callable[[object], bool]:
    return lambda value: whole(value, 1, most)


def _number(low: float, high: float) -> Callable[[object], bool]:
    """Refuses NaN as well, which is not between any two numbers."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _three(low: float, high: float) -> Callable[[object], bool]:
    one = _number(low, high)
    return lambda value: isinstance(value, list | tuple) and len(value) == 3 and all(map(one, value))


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _place(value: object) -> bool:
    """Rows and columns of a state's tokens."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(whole(one, 1, SIDE) for one in value)


def _or_none(allowed: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or allowed(value)


def _from_zero(most: int) -> Callable[[object], bool]:
    return lambda value: whole(value, 0, most)


def _several(one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) <= WIDE and all(map(one, value))


def _grid(value: object) -> bool:
    """Steps in time, rows and columns of an encoder's tokens."""
    return isinstance(value, list | tuple) and len(value) == 3 and all(whole(one, 1, SIDE) for one in value)


def _counts(value: object) -> bool:
    """Widths or depths of the layers or stages of a network."""
    return isinstance(value, list | tuple) and len(value) <= LEVELS and all(whole(one, 1, 1 << 16) for one in value)


def _depths(value: object) -> bool:
    """Blocks of each stage."""
    return _counts(value) and all(one <= DEEP for one in value)


def _timm_options(value: object) -> bool:
    """Arguments of timm's constructors that change sizes alone; no class is named and no file."""
    return isinstance(value, dict) and all(key in TIMM_OPTIONS and TIMM_OPTIONS[key](one) for key, one in value.items())


WIDE, DEEP, WEIGHT = 1 << 16, 512, _number(0, 1e6)
STATISTICS = {"mean": _three(-10, 10), "std": _three(1e-6, 100)}
VIT = (
    STATISTICS
    | {key: _count(SIDE) for key in ("image_size", "patch", "frames", "tubelet")}
    | {"depth": _count(DEEP), "width": _count(1 << 16), "heads": _count(1 << 16), "mlp_ratio": _number(1 / 64, 64)}
)
TIMM_OPTIONS: dict[str, Callable[[object], bool]] = {
    "patch_size": _count(SIDE), "embed_dim": _count(WIDE), "depth": _count(DEEP), "num_heads": _count(WIDE),
    "mlp_ratio": _number(1 / 64, 64), "qkv_bias": _flag, "class_token": _flag, "reg_tokens": _from_zero(LEVELS),
    "no_embed_class": _flag, "init_values": _or_none(_number(0, 1e3)), "pre_norm": _flag,
    "dynamic_img_size": _flag, "layers": _depths, "channels": _counts, "stem_width": _count(WIDE),
    "base_width": _count(WIDE), "cardinality": _count(WIDE), "depths": _depths, "dims": _counts,
    "ls_init_value": _or_none(_number(0, 1e3)), "head_norm_first": _flag, "conv_mlp": _flag, "use_grn": _flag,
}  # fmt: skip
PREDICTOR = {key: _count(WIDE) for key in ("encoder_width", "width", "heads")} | {
    "depth": _from_zero(DEEP), "grid": _grid, "joint": _flag, "fuse": _or_none(_count(WIDE)),
    "out": _or_none(_count(WIDE)), "span": _count(SIDE), "actions": _count(WIDE), "extrinsics": _flag,
}  # fmt: skip
ALLOWED: dict[str, dict[str, Callable[[object], bool]]] = {  # what an argument read from a file may be
    "ViT": VIT,
    "RotaryViT": VIT,
    "TiledRotaryViT": VIT,
    "MixedViT": VIT,
    "MultilevelViT": VIT,
    "TimmEncoder": STATISTICS
    | {"image_size": _count(SIDE), "name": lambda value: isinstance(value, str) and 0 < len(value) < 200}
    | {"cifar_stem": _flag, "options": _timm_options, "eps": _number(1e-16, 1)},
    **{name: PREDICTOR for name in PREDICTORS},
    "Projector": {"encoder_width": _count(WIDE), "hidden": _counts, "out": _count(WIDE)},
    "SmallConv": STATISTICS | {key: _count(SIDE) for key in ("image_size", "width")},
    "Pixels": STATISTICS | {key: _count(SIDE) for key in ("image_size", "side")},
    "World": {key: _count(WIDE) for key in ("width", "block")}
    | {"frames": _count(LEVELS)}
    | {"frozen": _flag, "hidden": _counts, "standardise": _flag}
    | {key: _several(_number(-1e9, 1e9)) for key in ("low", "high")},
    "ResidualMLP": {key: _count(WIDE) for key in ("state_width", "hidden")}
    | {key: _from_zero(WIDE) for key in ("actions", "latent")}
    | {"depth": _from_zero(DEEP)},
    "Hierarchy": {"frames": _count(WIDE), "tubelet": _count(WIDE), "reads": _from_zero(LEVELS)},
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
