"""Transformers' encoders of pictures, I-JEPA, ViT and DINOv2, under our names and timm's."""

import re
from typing import Any

import torch

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.parts import Part, Parts, Weights, ratio, resize_positions, side
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.untrusted import shown

EPS = 1e-6  # of our own transformers
BLOCK = r"^encoder\.layer\.(\d+)\."
PICTURES = (  # theirs, ours: I-JEPA, ViT, DINOv2
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (BLOCK + r"(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (BLOCK + r"(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (BLOCK + r"attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (BLOCK + r"attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (BLOCK + r"(?:intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
    (BLOCK + r"(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.", r"blocks.\1.mlp.fc2."),
    (BLOCK + r"mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
    (BLOCK + r"mlp\.(gate|up)_proj\.", r"blocks.\1.mlp.\2."),
    (BLOCK + r"layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^layernorm\.", "norm."),
)


def renamed(weights: Weights, names: tuple[tuple[str, str], ...]) -> Weights:
    """The weights under other names: each by the first pattern that it fits, or as it was."""
    new = {}
    for name, tensor in weights.items():
        pattern, ours = next(((p, o) for p, o in names if re.search(p, name)), ("$^", ""))
        new[re.sub(pattern, ours, name)] = tensor
    return new


def fused(weights: Weights) -> Weights:
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


def _gated(weights: Weights) -> Weights:
    """The two halves of SwiGLU's first layer as one, where they lie apart."""
    new = dict(weights)
    for name in [one for one in weights if ".mlp.gate." in one]:
        if name.replace("gate", "up") not in weights:
            raise UserError(f"weights missing: {name.replace('gate', 'up')}, which goes with {name}")
        new[name.replace("gate", "fc1")] = torch.cat([new.pop(name), new.pop(name.replace("gate", "up"))])
    return new


def read_pictures(config: dict[str, Any], weights: Weights, pixels: dict[str, Any], spec: Spec) -> Parts:
    """The encoder of I-JEPA, ViT or DINOv2: a `ViT` where that computes the same, else a `TimmEncoder`.

    Args:
        config: the folder's `config.json`.
        weights: without the heads.
        pixels: `mean` and `std`.
        spec: how the user named the folder.

    Raises:
        UserError: weights missing, or contradicting the config.
    """
    weights = _gated(fused(renamed(weights, PICTURES)))
    if "pos_embed" not in weights:
        raise UserError(f"{spec.place}: weights missing: embeddings.position_embeddings")
    registers = len(weights["reg_token"][0]) if "reg_token" in weights else 0
    if registers != config.get("num_register_tokens", 0):
        said = config.get("num_register_tokens", 0)
        raise UserError(f"{spec.place}: expected {shown(said)} register tokens, found {registers}")
    prefix = int("cls_token" in weights)
    weights, size, notes = _at(config, weights, prefix, spec)
    if registers:  # as in timm, the class token holds its own position; registers have none
        first, rest = weights["pos_embed"][:, :1], weights["pos_embed"][:, 1:]
        weights |= {"cls_token": weights["cls_token"] + first, "pos_embed": rest.contiguous()}
    hidden = config.get("intermediate_size") or config["mlp_ratio"] * config["hidden_size"]
    gated = bool(config.get("use_swiglu_ffn"))
    if gated:  # two halves of two thirds each, in eights
        hidden = 2 * ((int(int(hidden) * 2 / 3) + 7) // 8 * 8)
    shape = {"depth": config["num_hidden_layers"], "mlp_ratio": ratio(int(hidden), config["hidden_size"])}
    heads, width, patch = config["num_attention_heads"], config["hidden_size"], config["patch_size"]
    if prefix == 0 and config["layer_norm_eps"] == EPS:
        args = {"image_size": size, "patch": patch, "width": width, "heads": heads} | shape | pixels
        return Parts("", Part({"class": "ViT", "args": args}, weights), notes=notes)
    options = shape | {
        "patch_size": patch, "embed_dim": width, "num_heads": heads, "class_token": bool(prefix),
        "init_values": 1.0 if "blocks.0.ls1.gamma" in weights else None,
    }  # fmt: skip
    options |= {"reg_tokens": registers, "no_embed_class": True} if registers else {}
    name = (
        "vit_giant_patch14_dinov2" if gated else "vit_base_patch16_224"
    )  # a SwiGLU is no option of timm's, but a name
    args = {"name": name, "image_size": size, "cifar_stem": False, "options": options}
    args |= {"eps": config["layer_norm_eps"]} | pixels
    return Parts(
        "", Part({"class": "TimmEncoder", "args": args}, {f"model.{n}": one for n, one in weights.items()}), notes=notes
    )


def _at(config: dict[str, Any], weights: Weights, prefix: int, spec: Spec) -> tuple[Weights, int, tuple[str, ...]]:
    """The weights with the positions of the size that is asked for."""
    patch, table = config["patch_size"], weights["pos_embed"]
    rows = side(table.shape[1] - prefix, spec.place, "position_embeddings")
    if rows * patch != config["image_size"]:
        raise UserError(
            f"{spec.place}: expected positions of {config['image_size']} px, found those of {rows * patch} px"
        )
    size = spec.options.get("image_size", config["image_size"])
    old, new = Grid(1, rows, rows), Grid(1, size // patch, size // patch)
    table = resize_positions(table, old, new, prefix, antialias=config["model_type"] == "dinov2_with_registers")
    notes = () if old == new else (f"positions interpolated from {tuple(old)} to {tuple(new)} (t, h, w)",)
    return weights | {"pos_embed": table}, size, notes
