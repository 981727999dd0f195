"""Folders that transformers' `save_pretrained` writes: I-JEPA, V-JEPA 2 with its predictor, ViT, DINOv2 of all kinds.

Read without transformers: `config.json` and safetensors, in one file or several. Queries, keys and values lie apart
there and together here; a missing bias of theirs is one of zeros.
"""

from pathlib import Path
from typing import Any

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.files import read_folder_json, read_weights
from jepa_pretrain.interop.parts import Part, Parts, Weights, layers
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.interop.transformers_pictures import EPS, fused, read_pictures, renamed
from jepa_pretrain.models.normalise import IMAGENET_MEAN, IMAGENET_STD
from jepa_pretrain.untrusted import shown, whole

ORIGINS = {
    "ijepa": "IJepaModel",
    "vjepa2": "VJEPA2Model",
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
WRAPPED = tuple(f"{kind}." for kind in ORIGINS)  # what a model with a head puts before the encoder's names
LEFT_OUT = ("classifier.", "pooler.", "embeddings.mask_token", "decoder.")  # heads, and what only training used
COUNTS = ("patch_size", "hidden_size", "num_attention_heads", "num_hidden_layers")
CLIP_COUNTS = ("crop_size", "frames_per_clip", "tubelet_size", "pred_hidden_size", "pred_num_attention_heads")
CLIP_COUNTS += ("pred_num_hidden_layers",)
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
    read = _clips if kind == "vjepa2" else read_pictures
    parts = read(config, weights, pixels, spec)
    notes = (*parts.notes, note, *((f"left out: {', '.join(left)}",) if left else ()))
    return parts._replace(origin=f"{ORIGINS[kind]} (transformers)", notes=notes)


def _check(config: dict[str, Any], spec: Spec) -> None:
    """What the config says must be what our layers do, or it is refused: no default is taken for another."""
    expected = {
        "hidden_act": ("gelu",),
        "num_channels": (3, None),
        "in_chans": (3, None),
        "use_swiglu_ffn": (False, None, True),
    }
    for key, values in expected.items():
        if config.get(key) not in values:
            raise UserError(f"{spec.place}/config.json: expected {key} {values[0]}, found {shown(config.get(key))}")
    for key in (*COUNTS, *(CLIP_COUNTS if config["model_type"] == "vjepa2" else ("image_size",))):
        if not whole(config.get(key), 0 if key == "pred_num_hidden_layers" else 1, 1 << 16):
            raise UserError(
                f"{spec.place}/config.json: expected a whole number for {key}, found {shown(config.get(key))}"
            )
    if not isinstance(config.get("mlp_ratio", 4), int | float):
        raise UserError(f"{spec.place}/config.json: expected mlp_ratio, found {shown(config['mlp_ratio'])}")
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
    encoder = Part({"class": "TiledRotaryViT", "args": args | pixels}, fused(renamed(own, CLIPS)))
    predictor, notes = _predictor(config, head, encoder, spec)
    return Parts("", encoder, predictor=predictor, notes=notes)


def _predictor(
    config: dict[str, Any], weights: Weights, encoder: Part, spec: Spec
) -> tuple[Part | None, tuple[str, ...]]:
    """The predictor; of several mask tokens the one that transformers takes, or the one asked for."""
    if not weights or config["pred_num_hidden_layers"] == 0:
        return None, ("the folder has no predictor",)
    weights = fused(renamed(weights, PREDICTOR))
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
