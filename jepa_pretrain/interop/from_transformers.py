"""Folders that transformers' `save_pretrained` writes: I-JEPA, V-JEPA 2 with its predictor, ViT, DINOv2.

Read without transformers: `config.json` and safetensors, in one file or several. Queries, keys and values lie apart
there and together here; a missing bias of theirs is one of zeros.
"""

import re
from pathlib import Path
from typing import Any

import torch

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.files import read_folder_json, read_weights
from jepa_pretrain.interop.parts import Part, Parts, Weights, layers, ratio, resize_positions, side
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.models.normalise import IMAGENET_MEAN, IMAGENET_STD
from jepa_pretrain.untrusted import shown, whole

ORIGINS = {"ijepa": "IJepaModel", "vjepa2": "VJEPA2Model", "vit": "ViTModel", "dinov2": "Dinov2Model"}
WRAPPED = ("ijepa.", "vjepa2.", "vit.", "dinov2.")  # what a model with a head puts before the encoder's names
LEFT_OUT = ("classifier.", "pooler.", "embeddings.mask_token", "decoder.")  # heads, and what only training used
BLOCK = r"^encoder\.layer\.(\d+)\."
PICTURES = (  # theirs, ours: I-JEPA, ViT, DINOv2
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (BLOCK + r"(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (BLOCK + r"(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (BLOCK + r"attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (BLOCK + r"attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (BLOCK + r"(?:intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
    (BLOCK + r"(?:output\.dense|mlp\.fc2)\.", r"blocks.\1.mlp.fc2."),
    (BLOCK + r"layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^layernorm\.", "norm."),
)
CLIPS = (
    (r"^embeddings\.patch_embeddings\.proj\.", "patch_embed.proj."),
    (r"^layer\.(\d+)\.attention\.", r"blocks.\1.attn."),
    (r"^layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
)
PREDICTOR = (
    (r"^embeddings\.predictor_embeddings\.", "predictor_embed."),
    (r"^embeddings\.mask_tokens$", "mask_tokens"),
    (r"^layer\.(\d+)\.attention\.", r"predictor_blocks.\1.attn."),
    (r"^layer\.(\d+)\.", r"predictor_blocks.\1."),
    (r"^layernorm\.", "predictor_norm."),
    (r"^proj\.", "predictor_proj."),
)
EPS = 1e-6  # of our own transformers


def read_transformers(config: dict[str, Any], spec: Spec) -> Parts:
    """Encoder, and for V-JEPA 2 the predictor, of a folder of transformers'.

    Args:
        config: the folder's `config.json`.
        spec: how the user named it.

    Raises:
        UserError: a model that is not known here, options that it has and ours lack, or weights that contradict it.
    """
    kind = config.get("model_type")
    if kind not in ORIGINS:
        raise UserError(f"{spec.place}: model_type {shown(kind)} is not read; {', '.join(ORIGINS)} are")
    _check(config, spec)
    folder = Path(spec.place)
    weights = read_weights(folder)
    prefix = next((one for one in WRAPPED if any(name.startswith(one) for name in weights)), "")
    weights = {name.removeprefix(prefix): one for name, one in weights.items()}
    left = sorted(name for name in weights if name.startswith(LEFT_OUT))
    weights = {name: one for name, one in weights.items() if name not in left}
    pixels, note = _pixels(folder, kind)
    read = _clips if kind == "vjepa2" else _pictures
    parts = read(config, weights, pixels, spec)
    notes = (*parts.notes, note, *((f"left out: {', '.join(left)}",) if left else ()))
    return parts._replace(origin=f"{ORIGINS[kind]} (transformers)", notes=notes)


def _check(config: dict[str, Any], spec: Spec) -> None:
    """What the config says must be what our layers do, or it is refused: no default is taken for another."""
    expected = {
        "hidden_act": ("gelu",),
        "num_channels": (3, None),
        "in_chans": (3, None),
        "use_swiglu_ffn": (False, None),
    }
    for key, values in expected.items():
        if config.get(key) not in values:
            raise UserError(f"{spec.place}/config.json: expected {key} {values[0]}, found {shown(config.get(key))}")
    counts = ("patch_size", "hidden_size", "num_attention_heads", "num_hidden_layers")
    for key in (*counts, "crop_size" if config["model_type"] == "vjepa2" else "image_size"):
        if not whole(config.get(key), 1, 1 << 16):
            raise UserError(
                f"{spec.place}/config.json: expected a whole number for {key}, found {shown(config.get(key))}"
            )
    if not isinstance(config.get("layer_norm_eps"), float):
        raise UserError(
            f"{spec.place}/config.json: expected layer_norm_eps, found {shown(config.get('layer_norm_eps'))}"
        )


def _pixels(folder: Path, kind: str) -> tuple[dict[str, Any], str]:
    """Mean and deviation of the pixels, from the preprocessor's file where there is one."""
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (folder / name).is_file():
            said = read_folder_json(folder, name)
            return {"mean": said.get("image_mean"), "std": said.get("image_std")}, f"pixel statistics of {name}"
    mean, std = ((0.5,) * 3, (0.5,) * 3) if kind == "vit" else (IMAGENET_MEAN, IMAGENET_STD)
    return {"mean": list(mean), "std": list(std)}, "no preprocessor_config.json: transformers' default pixel statistics"


def _renamed(weights: Weights, names: tuple[tuple[str, str], ...]) -> Weights:
    new = {}
    for name, tensor in weights.items():
        pattern, ours = next(((p, o) for p, o in names if re.search(p, name)), ("$^", ""))
        new[re.sub(pattern, ours, name)] = tensor
    return new


def _fused(weights: Weights) -> Weights:
    """Queries, keys and values as one matrix; where they have no bias, one of zeros."""
    new = dict(weights)
    for name in [one for one in weights if one.endswith(".attn.query.weight")]:
        stem = name.removesuffix("query.weight")
        for kind in ("weight", "bias"):
            three = [new.pop(f"{stem}{part}.{kind}", None) for part in ("query", "key", "value")]
            if all(one is not None for one in three):
                new[f"{stem}qkv.{kind}"] = torch.cat(three)
            elif kind == "bias" and all(one is None for one in three):
                new[f"{stem}qkv.bias"] = torch.zeros(3 * weights[name].shape[0], dtype=weights[name].dtype)
            else:
                raise UserError(f"{stem}query, key and value: a {kind} is missing of one and not of the others")
    return new


def _pictures(config: dict[str, Any], weights: Weights, pixels: dict[str, Any], spec: Spec) -> Parts:
    weights = _fused(_renamed(weights, PICTURES))
    prefix, patch = int("cls_token" in weights), config["patch_size"]
    if "pos_embed" not in weights:
        raise UserError(f"{spec.place}: weights missing: embeddings.position_embeddings")
    rows = side(weights["pos_embed"].shape[1] - prefix, spec.place, "position_embeddings")
    if rows * patch != config["image_size"]:
        raise UserError(
            f"{spec.place}: expected positions of {config['image_size']} px, found those of {rows * patch} px"
        )
    size = spec.options.get("image_size", config["image_size"])
    old, new = Grid(1, rows, rows), Grid(1, size // patch, size // patch)
    weights["pos_embed"] = resize_positions(weights["pos_embed"], old, new, prefix)
    notes = () if old == new else (f"positions interpolated from {tuple(old)} to {tuple(new)} (t, h, w)",)
    hidden = config.get("intermediate_size") or config["mlp_ratio"] * config["hidden_size"]
    shape = {"depth": config["num_hidden_layers"], "mlp_ratio": ratio(int(hidden), config["hidden_size"])}
    heads, width = config["num_attention_heads"], config["hidden_size"]
    if prefix == 0 and config["layer_norm_eps"] == EPS:
        args = {"image_size": size, "patch": patch, "width": width, "heads": heads} | shape | pixels
        return Parts("", Part({"class": "ViT", "args": args}, weights), notes=notes)
    options = shape | {
        "patch_size": patch, "embed_dim": width, "num_heads": heads, "class_token": bool(prefix),
        "init_values": 1.0 if "blocks.0.ls1.gamma" in weights else None,
    }  # fmt: skip
    args = {"name": "vit_base_patch16_224", "image_size": size, "cifar_stem": False, "options": options}
    args |= {"eps": config["layer_norm_eps"]} | pixels
    return Parts(
        "", Part({"class": "TimmEncoder", "args": args}, {f"model.{n}": one for n, one in weights.items()}), notes=notes
    )


def _clips(config: dict[str, Any], weights: Weights, pixels: dict[str, Any], spec: Spec) -> Parts:
    if config["layer_norm_eps"] != EPS:
        raise UserError(f"{spec.place}/config.json: expected layer_norm_eps {EPS}, found {config['layer_norm_eps']}")
    frames, tubelet, patch = config["frames_per_clip"], config["tubelet_size"], config["patch_size"]
    frames, size = spec.options.get("frames", frames), spec.options.get("image_size", config["crop_size"])
    args = {
        "image_size": size, "patch": patch, "width": config["hidden_size"], "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"], "mlp_ratio": float(config["mlp_ratio"]), "frames": frames,
        "tubelet": tubelet,
    }  # fmt: skip
    own = {name.removeprefix("encoder."): one for name, one in weights.items() if name.startswith("encoder.")}
    head = {name.removeprefix("predictor."): one for name, one in weights.items() if name.startswith("predictor.")}
    strange = sorted(weights.keys() - {f"encoder.{n}" for n in own} - {f"predictor.{n}" for n in head})
    if strange:
        raise UserError(f"{spec.place}: weights not of this architecture: {', '.join(strange[:5])}")
    encoder = Part({"class": "TiledRotaryViT", "args": args | pixels}, _fused(_renamed(own, CLIPS)))
    predictor, notes = _predictor(config, head, encoder, spec)
    return Parts("", encoder, predictor=predictor, notes=notes)


def _predictor(
    config: dict[str, Any], weights: Weights, encoder: Part, spec: Spec
) -> tuple[Part | None, tuple[str, ...]]:
    """The predictor; of several mask tokens the one that transformers takes, or the one asked for."""
    if not weights or config["pred_num_hidden_layers"] == 0:
        return None, ("the folder has no predictor",)
    weights = _fused(_renamed(weights, PREDICTOR))
    tokens = weights.pop("mask_tokens", None)  # (count, 1, 1, P)
    if tokens is None:
        raise UserError(f"{spec.place}: weights missing: predictor.embeddings.mask_tokens; half a predictor is none")
    chosen = spec.options.get("mask_token", 1) % len(tokens)
    weights["mask_token"] = tokens[chosen].clone()
    own = encoder.architecture["args"]
    rows = own["image_size"] // own["patch"]
    args = {
        "encoder_width": own["width"], "grid": [own["frames"] // own["tubelet"], rows, rows],
        "width": config["pred_hidden_size"], "depth": layers(weights, "predictor_blocks"),
        "heads": config["pred_num_attention_heads"],
    }  # fmt: skip
    if args["depth"] != config["pred_num_hidden_layers"]:
        raise UserError(
            f"{spec.place}: expected {config['pred_num_hidden_layers']} predictor blocks, found {args['depth']}"
        )
    return Part({"class": "TiledRotaryPredictor", "args": args}, weights), (f"mask token {chosen} of {len(tokens)}",)
