"""Meta's released transformers, as they are: I-JEPA's `.pth.tar`, V-JEPA's, V-JEPA 2's, 2-AC's and 2.1's files.

Layout: `{"encoder": ..., "target_encoder": ..., "predictor": ..., ...}`, every name behind `module.` and for video
behind `module.backbone.`; where V-JEPA 2.1 was distilled, its target is called `ema_encoder`. What such a file does not
say: attention heads (known for the published widths), the size of rotary models' input, and the number of frames. What
is taken for granted is written into the provenance.
"""

from typing import Any

from torch import Tensor

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.meta_predictors import action_predictor, heads_of, masked_predictor
from jepa_pretrain.interop.parts import Part, Parts, Weights, layers, ratio, resize_positions, side
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.untrusted import shown

CLASSES = {"ijepa": "ViT", "vjepa": "ViT", "vjepa2": "TiledRotaryViT", "vjepa21": "MultilevelViT"}
ORIGINS = {"ijepa": "I-JEPA", "vjepa": "V-JEPA", "vjepa2": "V-JEPA 2", "vjepa21": "V-JEPA 2.1"}
HANDED = ("ema_encoder", "target_encoder", "encoder")  # the first of these that a file has is the one to use
SIZES = {"vjepa2": 256, "vjepa21": 384}  # pixels, as published, of those that do not say it


def is_jepa(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint has the parts of Meta's JEPA files."""
    return any(isinstance(checkpoint.get(name), dict) for name in HANDED)


def read_jepa(checkpoint: dict[str, Any], spec: Spec) -> Parts:
    """Encoder, trained encoder and predictor of a file of Meta's.

    Args:
        checkpoint: what `checkpoint.read` gives.
        spec: how the user named it.

    Raises:
        UserError: parts missing, of another architecture, or something that the file leaves open.
    """
    handed = next(name for name in HANDED if name in checkpoint)
    weights = plain(checkpoint[handed], f"{spec.place}: {handed}")
    predictor = checkpoint.get("predictor")
    predictor = None if predictor is None else plain(predictor, f"{spec.place}: predictor")
    kind = _kind(weights, predictor, spec)
    encoder, grid, notes = _encoder(weights, kind, spec)
    online = None
    if handed != "encoder" and "encoder" in checkpoint:
        other = plain(checkpoint["encoder"], f"{spec.place}: encoder")
        _alike(weights, other, handed, spec)
        online = Part(encoder.architecture, _encoder(other, kind, spec)[0].weights)
    parts = Parts(f"{ORIGINS[kind]} (Meta)", encoder, online, notes=(*notes, f"{handed} of the file"))
    if predictor is None:
        return parts._replace(notes=(*parts.notes, "the file has no predictor"))
    if "action_encoder.weight" in predictor:
        dynamics, more = action_predictor(predictor, encoder, spec)
        return parts._replace(origin="V-JEPA 2-AC (Meta)", dynamics=dynamics, notes=(*parts.notes, *more))
    head, more = masked_predictor(predictor, encoder, grid, kind, spec)
    return parts._replace(predictor=head, notes=(*parts.notes, *more))


def plain(weights: Any, source: str) -> Weights:
    """Weights without the prefixes that data-parallel training and Meta's wrappers put before all of them."""
    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{source} should hold weights by name, found {type(weights).__name__}")
    if not all(isinstance(name, str) and isinstance(one, Tensor) for name, one in weights.items()):
        raise UserError(
            f"{source} should hold tensors by name, found {shown([type(w).__name__ for w in weights.values()][:3])}"
        )
    for prefix in ("module.", "backbone."):
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): one for name, one in weights.items()}
    return dict(weights)


def _alike(target: Weights, encoder: Weights, handed: str, spec: Spec) -> None:
    """Both encoders of a file have the same weights, or some were lost or are another model's."""
    for some, others, has, lacks in ((target, encoder, handed, "encoder"), (encoder, target, "encoder", handed)):
        if lost := sorted(some.keys() - others.keys()):
            raise UserError(f"{spec.place}: expected one architecture twice, found {lost[0]} in {has}, not in {lacks}")


def _kind(weights: Weights, predictor: Weights | None, spec: Spec) -> str:
    """Which of them it is, from what is in it; V-JEPA and V-JEPA 2 differ in the use of positions alone."""
    patches = weights.get("patch_embed.proj.weight")
    if patches is None or patches.dim() not in (4, 5):
        names = ", ".join(list(weights)[:3])
        raise UserError(
            f"{spec.place}: expected patch_embed.proj.weight of 4 or 5 dimensions, found {shown(names, 120)}"
        )
    if layers(weights, "norms_block"):
        if spec.kind is not None:
            raise UserError(f"{spec.place}: {spec.kind} was asked for, found several norms, as V-JEPA 2.1 has")
        return "vjepa21"
    image = patches.dim() == 4
    if spec.kind is not None and (spec.kind == "ijepa") != image:
        raise UserError(f"{spec.place}: {spec.kind} was asked for, found patches of {'pictures' if image else 'clips'}")
    if spec.kind is not None or image:
        return spec.kind or "ijepa"
    if "pos_embed" not in weights or "action_encoder.weight" in (predictor or {}):
        return "vjepa2"
    tokens = layers(predictor or {}, "mask_tokens")
    if tokens > 2:
        return "vjepa2"  # positions lie in its files and are not used; V-JEPA has two mask tokens
    if tokens == 2 and "predictor_pos_embed" in predictor:
        return "vjepa"
    raise UserError(f"{spec.place} could be of V-JEPA or V-JEPA 2: write vjepa:{spec.place} or vjepa2:{spec.place}")


def _encoder(weights: Weights, kind: str, spec: Spec) -> tuple[Part, Grid, list[str]]:
    """The encoder at the asked size, the grid of the file itself, and what was taken for granted."""
    patches = weights["patch_embed.proj.weight"]  # (D, 3, p, p) or (D, 3, t, p, p)
    width, patch, tubelet = patches.shape[0], patches.shape[-1], patches.shape[2] if patches.dim() == 5 else 1
    hidden = weights.get("blocks.0.mlp.fc1.weight")
    if hidden is None:
        raise UserError(f"{spec.place}: weights missing: blocks.0.mlp.fc1.weight")
    grid, notes = _grid(weights, kind, tubelet, patch, spec)
    frames = spec.options.get("frames", grid.t * tubelet) if tubelet > 1 else 1
    size = spec.options.get("image_size", grid.h * patch)
    args = {
        "image_size": size, "patch": patch, "width": width, "depth": layers(weights, "blocks"),
        "heads": heads_of(width, "heads", kind, spec), "mlp_ratio": ratio(hidden.shape[0], width),
        "frames": frames, "tubelet": tubelet,
    }  # fmt: skip
    weights = dict(weights)
    if "patch_embed_img.proj.weight" in weights:  # pictures as clips of one frame: (D, 3, 1, p, p)
        weights["patch_embed_img.proj.weight"] = weights["patch_embed_img.proj.weight"].squeeze(2)
    if kind in SIZES:
        if weights.pop("pos_embed", None) is not None:
            notes.append("pos_embed lies in the file and is not used, as in Meta's code")
    elif (new := Grid(frames // tubelet, size // patch, size // patch)) != grid:
        weights["pos_embed"] = resize_positions(weights["pos_embed"], grid, new)
        notes.append(f"positions interpolated from {tuple(grid)} to {tuple(new)} (t, h, w)")
    return Part({"class": CLASSES[kind], "args": args}, weights), grid, notes


def _grid(weights: Weights, kind: str, tubelet: int, patch: int, spec: Spec) -> tuple[Grid, list[str]]:
    """The token grid of the file: from its positions, or, for rotary ones, as asked or published."""
    if kind in SIZES:
        size, frames = spec.options.get("image_size", SIZES[kind]), spec.options.get("frames", 64)
        given = {"image_size", "frames"} <= spec.options.keys()
        notes = [] if given else [f"the file does not say its input: {size} px and up to {frames} frames are assumed"]
        return Grid(frames // tubelet, size // patch, size // patch), notes
    if "pos_embed" not in weights:
        raise UserError(f"{spec.place}: weights missing: pos_embed")
    tokens = weights["pos_embed"].shape[1]
    if kind == "ijepa":
        rows = side(tokens, spec.place, "pos_embed")
        return Grid(1, rows, rows), []
    steps = 16 // tubelet  # all of V-JEPA's released models were trained on 16 frames
    rows = side(tokens // steps, spec.place, "pos_embed")
    if rows * rows * steps != tokens:
        raise UserError(
            f"{spec.place}: pos_embed has {tokens} positions, which do not divide into {steps} steps in time"
        )
    return Grid(steps, rows, rows), ["16 frames in the file, as in all of V-JEPA's"]
