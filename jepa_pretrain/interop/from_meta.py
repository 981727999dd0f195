"""Meta's released transformers, as they are: I-JEPA's `.pth.tar`, V-JEPA's and V-JEPA 2's files, with their predictors.

Layout: `{"encoder": ..., "target_encoder": ..., "predictor": ..., ...}`, every name behind `module.` and for video
behind `module.backbone.`. What such a file does not say: attention heads (known for the published widths), the size of
rotary models' input, and the number of frames. What is taken for granted is written into the provenance.
"""

from typing import Any

from torch import Tensor

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.parts import Part, Parts, Weights, layers, ratio, resize_positions, side
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.untrusted import shown

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}  # of I-JEPA and V-JEPA, by width
ROTARY_HEADS = HEADS | {1408: 22, 1664: 26}  # of V-JEPA 2
CLASSES = {
    "ijepa": ("ViT", "MaskedPredictor"),
    "vjepa": ("ViT", "MaskedPredictor"),
    "vjepa2": ("TiledRotaryViT", "TiledRotaryPredictor"),
}
ORIGINS = {"ijepa": "I-JEPA (Meta)", "vjepa": "V-JEPA (Meta)", "vjepa2": "V-JEPA 2 (Meta)"}
MASK_TOKEN = 1  # V-JEPA's predictors have several; this is the one that theirs and transformers' take by default


def is_jepa(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint has the parts of Meta's JEPA files."""
    return isinstance(checkpoint.get("encoder") or checkpoint.get("target_encoder"), dict)


def read_jepa(checkpoint: dict[str, Any], spec: Spec) -> Parts:
    """Encoder, trained encoder and predictor of a file of Meta's.

    Args:
        checkpoint: what `checkpoint.read` gives.
        spec: how the user named it.

    Raises:
        UserError: parts missing, of another architecture, or something that the file leaves open.
    """
    handed = "target_encoder" if "target_encoder" in checkpoint else "encoder"
    weights = plain(checkpoint[handed], f"{spec.place}: {handed}")
    online = (
        plain(checkpoint["encoder"], f"{spec.place}: encoder")
        if handed != "encoder" and "encoder" in checkpoint
        else None
    )
    predictor = checkpoint.get("predictor")
    predictor = None if predictor is None else plain(predictor, f"{spec.place}: predictor")
    kind = _kind(weights, predictor, spec)
    encoder, grid, notes = _encoder(weights, kind, spec)
    if online is not None:
        online = _encoder(online, kind, spec)[0].weights
    if predictor is None or "action_encoder.weight" in predictor:
        left = "the file has no predictor" if predictor is None else "the action-conditioned predictor is not read"
        return Parts(ORIGINS[kind], encoder, _as(encoder, online), notes=(*notes, left))
    head, more = _predictor(predictor, encoder, grid, kind, spec)
    return Parts(ORIGINS[kind], encoder, _as(encoder, online), head, notes=(*notes, *more))


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


def _as(encoder: Part, online: Weights | None) -> Part | None:
    return None if online is None else Part(encoder.architecture, online)


def _kind(weights: Weights, predictor: Weights | None, spec: Spec) -> str:
    """Which of the three it is, from what is in it; V-JEPA and V-JEPA 2 differ in the use of positions alone."""
    patches = weights.get("patch_embed.proj.weight")
    if patches is None or patches.dim() not in (4, 5):
        names = ", ".join(list(weights)[:3])
        raise UserError(
            f"{spec.place}: expected patch_embed.proj.weight of 4 or 5 dimensions, found {shown(names, 120)}"
        )
    if "norms_block.0.weight" in weights:
        raise UserError(f"{spec.place} is of V-JEPA 2.1, whose files are not read; V-JEPA, V-JEPA 2 and I-JEPA are")
    image = patches.dim() == 4
    if spec.kind is not None and (spec.kind == "ijepa") != image:
        raise UserError(f"{spec.place}: {spec.kind} was asked for, found patches of {'pictures' if image else 'clips'}")
    if spec.kind is not None or image:
        return spec.kind or "ijepa"
    if "pos_embed" not in weights:
        return "vjepa2"
    tokens = layers(predictor or {}, "mask_tokens")
    if tokens > 2:
        return "vjepa2"  # positions lie in its files and are not used; V-JEPA has two mask tokens
    if tokens == 2 and "predictor_pos_embed" in predictor:
        return "vjepa"
    raise UserError(f"{spec.place} could be of V-JEPA or V-JEPA 2: write vjepa:{spec.place} or vjepa2:{spec.place}")


def _heads(width: int, option: str, kind: str, spec: Spec) -> int:
    known = ROTARY_HEADS if kind == "vjepa2" else HEADS
    heads = spec.options.get(option) or known.get(width)
    if heads is None:
        raise UserError(
            f"{spec.place} does not say its attention heads, and {width} is no published width: add ?{option}=NUMBER"
        )
    return heads


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
        "heads": _heads(width, "heads", kind, spec), "mlp_ratio": ratio(hidden.shape[0], width),
        "frames": frames, "tubelet": tubelet,
    }  # fmt: skip
    weights = dict(weights)
    if kind == "vjepa2":
        if weights.pop("pos_embed", None) is not None:
            notes.append("pos_embed lies in the file and is not used, as in Meta's code")
    elif (new := Grid(frames // tubelet, size // patch, size // patch)) != grid:
        weights["pos_embed"] = resize_positions(weights["pos_embed"], grid, new)
        notes.append(f"positions interpolated from {tuple(grid)} to {tuple(new)} (t, h, w)")
    return Part({"class": CLASSES[kind][0], "args": args}, weights), grid, notes


def _grid(weights: Weights, kind: str, tubelet: int, patch: int, spec: Spec) -> tuple[Grid, list[str]]:
    """The token grid of the file: from its positions, or, for rotary ones, as asked or published."""
    if kind == "vjepa2":
        size, frames = spec.options.get("image_size", 256), spec.options.get("frames", 64)
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


def _predictor(weights: Weights, encoder: Part, grid: Grid, kind: str, spec: Spec) -> tuple[Part, list[str]]:
    """The predictor on the encoder's grid; of several mask tokens, one."""
    embed, hidden = weights.get("predictor_embed.weight"), weights.get("predictor_blocks.0.mlp.fc1.weight")
    if embed is None or hidden is None:
        lacking = "predictor_embed.weight" if embed is None else "predictor_blocks.0.mlp.fc1.weight"
        raise UserError(f"{spec.place}: predictor: weights missing: {lacking}; half a predictor is none")
    weights, notes, own = dict(weights), [], encoder.architecture["args"]
    if count := layers(weights, "mask_tokens"):
        chosen = spec.options.get("mask_token", MASK_TOKEN) % count
        tokens = [weights.pop(f"mask_tokens.{i}", None) for i in range(count)]
        if tokens[chosen] is None:
            raise UserError(f"{spec.place}: predictor: weights missing: mask_tokens.{chosen}; half a predictor is none")
        weights["mask_token"] = tokens[chosen]
        notes.append(f"mask token {chosen} of {count} taken for the predictor")
    new = Grid(own["frames"] // own["tubelet"], *[own["image_size"] // own["patch"]] * 2)
    if kind == "vjepa2":
        weights.pop("predictor_pos_embed", None)
    elif "predictor_pos_embed" in weights:
        weights["predictor_pos_embed"] = resize_positions(weights["predictor_pos_embed"], grid, new)
    width = embed.shape[0]
    default = 12 if kind == "vjepa2" and width == 384 else own["heads"]  # V-JEPA 2's have 12, others the encoder's
    args = {
        "encoder_width": own["width"], "grid": list(new), "width": width,
        "depth": layers(weights, "predictor_blocks"), "heads": spec.options.get("predictor_heads", default),
    }  # fmt: skip
    return Part({"class": CLASSES[kind][1], "args": args}, weights), notes
