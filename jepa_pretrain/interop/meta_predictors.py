"""The predictors in Meta's released files: masked ones, V-JEPA 2.1's dense one, and V-JEPA 2-AC's."""

from typing import Any

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.parts import Part, Weights, layers, resize_positions
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.models.multilevel import SEEN

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}  # of I-JEPA and V-JEPA, by width
ROTARY_HEADS = HEADS | {1408: 22, 1664: 26}  # of V-JEPA 2, 2-AC and 2.1
CLASSES = {
    "ijepa": "MaskedPredictor",
    "vjepa": "MaskedPredictor",
    "vjepa2": "TiledRotaryPredictor",
    "vjepa21": "MultilevelPredictor",
}
MASK_TOKEN = 1  # V-JEPA's predictors have several; this is the one that theirs and transformers' take by default


def heads_of(width: int, option: str, kind: str, spec: Spec) -> int:
    """Attention heads, which no file says.

    Args:
        width: features per token.
        option: how the user may say them.
        kind: which of Meta's models it is.
        spec: how the user named the file.

    Raises:
        UserError: no published model has this width, and the user does not say them.
    """
    known = HEADS if kind in ("ijepa", "vjepa") else ROTARY_HEADS
    heads = spec.options.get(option) or known.get(width)
    if heads is None:
        raise UserError(
            f"{spec.place} does not say its attention heads, and {width} is no published width: add ?{option}=NUMBER"
        )
    return heads


def masked_predictor(weights: Weights, encoder: Part, grid: Grid, kind: str, spec: Spec) -> tuple[Part, list[str]]:
    """The predictor on the encoder's grid; of several mask tokens, one.

    Args:
        weights: under Meta's names.
        encoder: the encoder of the same file.
        grid: that of the file, from which positions are interpolated.
        kind: which of Meta's models it is.
        spec: how the user named the file.

    Raises:
        UserError: weights missing.
    """
    levels = "predictor_embed.0.weight" in weights  # two layers, where several levels of the encoder come in
    first, last = (f"predictor_embed{place}.weight" for place in ((".0", ".2") if levels else ("", "")))
    _need(weights, {first, last, "predictor_proj.weight", "predictor_blocks.0.mlp.fc1.weight"}, spec)
    weights, notes = _one_mask_token(weights, spec)
    own, new = encoder.architecture["args"], _grid(encoder)
    if kind == "vjepa2":
        weights.pop("predictor_pos_embed", None)
    elif "predictor_pos_embed" in weights:
        weights["predictor_pos_embed"] = resize_positions(weights["predictor_pos_embed"], grid, new)
    width, (inner, into), out = len(weights[last]), weights[first].shape, len(weights["predictor_proj.weight"])
    default = 12 if kind in ("vjepa2", "vjepa21") and width == 384 else own["heads"]  # others have the encoder's
    args: dict[str, Any] = {
        "encoder_width": own["width"], "grid": list(new), "width": width,
        "depth": layers(weights, "predictor_blocks"), "heads": spec.options.get("predictor_heads", default),
    }  # fmt: skip
    if kind == "vjepa21":
        args |= {"encoder_width": into, "span": SEEN // own["patch"]}
        args |= ({"fuse": inner} if levels else {}) | ({"out": out} if out != into else {})
        notes.append("the predictor's rows and columns are stretched like the encoder's, as in its training")
    return Part({"class": CLASSES[kind], "args": args}, weights), notes


def _one_mask_token(weights: Weights, spec: Spec) -> tuple[Weights, list[str]]:
    """The weights with the mask token that is asked for, of several."""
    weights, count = dict(weights), layers(weights, "mask_tokens")
    if not count:
        return weights, []
    chosen = spec.options.get("mask_token", MASK_TOKEN) % count
    _need(weights, {f"mask_tokens.{chosen}"}, spec)
    weights["mask_token"] = weights[f"mask_tokens.{chosen}"]
    for i in range(count):
        weights.pop(f"mask_tokens.{i}", None)
    return weights, [f"mask token {chosen} of {count} taken for the predictor"]


def action_predictor(weights: Weights, encoder: Part, spec: Spec) -> tuple[Part, list[str]]:
    """V-JEPA 2-AC's predictor of a robot's next frame; arguments and errors as in `masked_predictor`."""
    _need(weights, {"predictor_embed.weight", "predictor_blocks.0.mlp.fc1.weight"}, spec)
    own, (width, actions) = encoder.architecture["args"], weights["action_encoder.weight"].shape
    args = {
        "encoder_width": own["width"], "grid": list(_grid(encoder)), "width": width,
        "depth": layers(weights, "predictor_blocks"), "heads": heads_of(width, "predictor_heads", "vjepa2", spec),
        "actions": actions, "extrinsics": bool(spec.options.get("extrinsics", 0)),
    }  # fmt: skip
    notes = ["its action-conditioned predictor is read by `interop.action_world.load_action_world`"]
    if not args["extrinsics"]:
        notes.append("extrinsics_encoder is not used, as in the released model's training")
    return Part({"class": "ActionPredictor", "args": args}, weights), notes


def _need(weights: Weights, names: set[str], spec: Spec) -> None:
    if missing := sorted(names - weights.keys()):
        raise UserError(f"{spec.place}: predictor: weights missing: {', '.join(missing)}; half a predictor is none")


def _grid(encoder: Part) -> Grid:
    own = encoder.architecture["args"]
    rows = own["image_size"] // own["patch"]
    return Grid(own["frames"] // own["tubelet"], rows, rows)
