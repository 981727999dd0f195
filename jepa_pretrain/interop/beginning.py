"""Continue a pretraining from somebody's weights: `fit --init X` fills a method's modules before the first step.

`encoder` gets the encoder that was trained where the file has it, else the one that it hands over; `target` that one;
`predictor` and `projector` theirs. What the file lacks keeps its fresh weights, and is said.
"""

from pathlib import Path
from typing import Any

from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import describe
from jepa_pretrain.interop.checkpoint import read
from jepa_pretrain.interop.files import read_folder_json
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.interop.parts import Part, Parts, Weights
from jepa_pretrain.interop.reading import is_ours, is_training_checkpoint, read_parts
from jepa_pretrain.interop.spec import Spec, parse
from jepa_pretrain.interop.weights import fill
from jepa_pretrain.models.described import described

PLACES = {"encoder": "encoder.", "target": "target.module.", "predictor": "predictor.", "projector": "projector."}
OPEN = (
    "joint",
    "fuse",
    "out",
    "mlp_ratio",
    "cifar_stem",
    "image_size",
    "grid",
)  # no weight depends on them, or its shape says


def begin_from(method: nn.Module, source: str) -> list[str]:
    """Fill the modules of a method with the weights of a checkpoint.

    Args:
        method: A module with `encoder`, and where it has them `target` (an EMA), `predictor` and `projector`.
        source: What `FrozenEncoder.load` takes, with its options; positions are interpolated to the method's size.

    Returns:
        What was done, a line for each part.

    Raises:
        UserError: The checkpoint is of another architecture than the method, or half of a part is missing.
    """
    found = _found(method.encoder, source)
    said = []
    for name, module in method.named_children():
        if name not in PLACES:
            continue
        if name not in found:
            said.append(f"{name}: fresh, there is none in {source}")
            continue
        _same(module.module if name == "target" else module, found[name], f"{source}: {name}")
        fill(module.module if name == "target" else module, found[name].weights, f"{source}: {name}")
        said.append(f"{name}: from {source}")
    used = {name for name, _ in method.named_children()}
    return said + [f"{name}: left out, the recipe has none" for name in found if name not in used | {"target"}]


def _found(encoder: nn.Module, source: str) -> dict[str, Part]:
    """The parts of the checkpoint by the names of a method's modules."""
    spec = parse(source, encoder.image_size)
    if (asked := spec.options["image_size"]) != encoder.image_size:
        raise UserError(f"{source} asks for {asked} px, the recipe's encoder takes {encoder.image_size}: leave it out")
    if encoder.config.get("tubelet", 1) > 1:
        spec.options.setdefault("frames", encoder.config["frames"])
    place = Path(spec.place)
    if place.is_file() and is_training_checkpoint(checkpoint := read(place)):
        return _of_training(checkpoint, spec)
    if spec.kind in ("timm", "random") or (place.is_dir() and is_ours(read_folder_json(place, "config.json"))):
        frozen = FrozenEncoder.load(source, None if place.is_dir() else encoder.image_size)
        part = Part(describe(frozen.encoder), frozen.encoder.state_dict())
        return {"encoder": part, "target": part}
    return _of_parts(read_parts(spec))


def _of_parts(parts: Parts) -> dict[str, Part]:
    found = {"encoder": parts.online or parts.encoder, "target": parts.encoder}
    found |= {"predictor": parts.predictor, "projector": parts.projector}
    return {name: part for name, part in found.items() if part is not None}


def _of_training(checkpoint: dict[str, Any], spec: Spec) -> dict[str, Part]:
    """The parts of a checkpoint of `fit`, in which modules bear a method's names."""
    state, entry = checkpoint["state_dict"], checkpoint.get("export")
    if not isinstance(state, dict) or not isinstance(entry, dict):
        raise UserError(f"{spec.place} carries no description of its encoder; was it written by `jepa-pretrain fit`?")
    descriptions = {"encoder": entry.get("config"), "target": entry.get("config"), "predictor": entry.get("predictor")}
    found = {}
    for name, prefix in PLACES.items():
        weights: Weights = {key.removeprefix(prefix): one for key, one in state.items() if key.startswith(prefix)}
        if weights:
            found[name] = Part(descriptions.get(name) or {}, weights)
    return found


def _same(module: nn.Module, part: Part, source: str) -> None:
    """Refuse what no shape would tell: another kind of positions, other heads, other pixel statistics."""
    own, theirs = described(module), part.architecture
    if not theirs or "args" not in theirs:
        return
    if own["class"] != theirs["class"]:
        raise UserError(f"{source} is a {theirs['class']}, the recipe has a {own['class']}")
    for key, value in theirs["args"].items():
        mine = own["args"].get(key)
        if key not in OPEN and _plain(mine) != _plain(value):
            raise UserError(f"{source} has {key} {value}, the recipe has {mine}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
