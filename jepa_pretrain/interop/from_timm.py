"""timm's models: by name, with downloaded weights, or from a folder that timm's `save_for_hf` writes (`local-dir:`).

A folder's config names the model and the arguments that change its sizes; the weights are read by us, as plain data. A
ViT without class token and with our layer norms becomes a `ViT`, which can drop tokens; all else a `TimmEncoder`.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.allowed import TIMM_OPTIONS
from jepa_pretrain.interop.files import read_weights
from jepa_pretrain.interop.parts import Part, Parts, Weights, resize_positions, side
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.untrusted import shown

OURS = {
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "class_token",
}  # of timm's ViT, that ViT knows too
WITHOUT_MEANING = {"num_classes", "global_pool", "in_chans", "img_size", "drop_path_rate", "drop_rate"}


def by_name(name: str, image_size: int, pretrained: bool) -> nn.Module:
    """A model of timm's; `pretrained` downloads its weights, without it they are drawn from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return TimmEncoder(name, image_size=image_size, pretrained=pretrained)
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{name!r} is neither an exported folder nor a timm model that loads: {reason}") from error


def read_timm(config: dict[str, Any], spec: Spec) -> Parts:
    """The encoder of a folder of timm's.

    Args:
        config: the folder's `config.json`.
        spec: how the user named it; `place` is the folder.

    Raises:
        UserError: a model that timm has not, arguments that are not known here, or weights that contradict them.
    """
    name, options = config.get("architecture"), config.get("model_args") or {}
    known = config.get("pretrained_cfg") or {}
    if not isinstance(name, str) or not timm.is_model(name):
        raise UserError(f"{spec.place}/config.json: expected architecture, a model of timm's, found {shown(name)}")
    if not isinstance(options, dict) or not isinstance(known, dict):
        raise UserError(f"{spec.place}/config.json: model_args and pretrained_cfg should hold names and values")
    size = options.get("img_size") or (known.get("input_size") or [3, 224, 224])[-1]
    size = size[0] if isinstance(size, list) else size
    options = {key: value for key, value in options.items() if key not in WITHOUT_MEANING}
    strange = sorted(key for key in options if key not in TIMM_OPTIONS)
    if strange:
        raise UserError(f"{spec.place}/config.json: model_args {', '.join(strange[:5])} are not known here")
    weights, left = _without_head(read_weights(Path(spec.place)), known)
    notes = (f"left out: {', '.join(left)}",) if left else ()
    pixels = {key: known[key] for key in ("mean", "std") if key in known}
    weights, wanted, more = _at(weights, options, size, spec)
    part = _ours(name, options, weights, wanted, pixels) or _theirs(name, options, weights, wanted, pixels)
    return Parts(f"{name} (timm)", part, notes=(*notes, *more))


def _without_head(weights: Weights, known: dict[str, Any]) -> tuple[Weights, list[str]]:
    """The weights but the classifier's, which the config names."""
    heads = known.get("classifier") or ()
    heads = tuple(f"{one}." for one in ([heads] if isinstance(heads, str) else heads))
    left = sorted(name for name in weights if name.startswith(heads)) if heads else []
    return {name: one for name, one in weights.items() if name not in left}, left


def _at(weights: Weights, options: dict[str, Any], size: int, spec: Spec) -> tuple[Weights, int, tuple[str, ...]]:
    """The weights at the size that is asked for."""
    wanted = spec.options.get("image_size", size)
    if "pos_embed" not in weights or wanted == size:
        return weights, wanted, ()
    table, patch = weights["pos_embed"], weights["patch_embed.proj.weight"].shape[-1]
    prefix = 0 if options.get("no_embed_class") else int("cls_token" in weights) + options.get("reg_tokens", 0)
    rows = side(table.shape[1] - prefix, spec.place, "pos_embed")
    old, new = Grid(1, rows, rows), Grid(1, wanted // patch, wanted // patch)
    weights = weights | {"pos_embed": resize_positions(table, old, new, prefix)}
    return weights, wanted, (f"positions interpolated from {tuple(old)} to {tuple(new)} (t, h, w)",)


def _ours(name: str, options: dict[str, Any], weights: Weights, size: int, pixels: dict[str, Any]) -> Part | None:
    """A plain ViT without class token, under the same names."""
    if options.keys() != OURS or options["class_token"] or not name.startswith("vit_") or "norm.weight" not in weights:
        return None
    args = {
        "image_size": size, "patch": options["patch_size"], "width": options["embed_dim"], "depth": options["depth"],
        "heads": options["num_heads"], "mlp_ratio": options["mlp_ratio"],
    }  # fmt: skip
    return Part({"class": "ViT", "args": args | pixels}, weights)


def _theirs(name: str, options: dict[str, Any], weights: Weights, size: int, pixels: dict[str, Any]) -> Part:
    args = {"name": name, "image_size": size, "cifar_stem": False, "options": options} | pixels
    return Part({"class": "TimmEncoder", "args": args}, {f"model.{key}": one for key, one in weights.items()})
