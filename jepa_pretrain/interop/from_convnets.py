"""Meta's released convolutional networks: VICReg's ResNets with their expander, VICRegL's ResNets and ConvNeXts.

A file is either the encoder's weights alone (`resnet50.pth`) or a checkpoint of the training, whose `model` has them
behind `module.backbone.`, the expander behind `module.projector.`. ConvNeXts bear the names of the paper's own code.
"""

import re
from typing import Any

from torch import Tensor

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.from_meta import plain
from jepa_pretrain.interop.parts import Part, Parts, Weights, layers
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.models.normalise import IMAGENET_MEAN, IMAGENET_STD

LOCAL = ("maps_projector.", "classifier.")  # VICRegL's other heads, which have no place here
CONVNEXT = (  # theirs, ours
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.dwconv\.", r"stages.\1.blocks.\2.conv_dw."),
    (r"^stages\.(\d+)\.(\d+)\.pwconv([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (r"^stages\.(\d+)\.(\d+)\.(norm\.|gamma)", r"stages.\1.blocks.\2.\3"),
    (r"^norm\.", "norm_pre."),
)


def is_convnet(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint is a ResNet or ConvNeXt of Meta's, alone or as a training left it."""
    names = checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else checkpoint
    return any(
        isinstance(name, str) and name.endswith(("layer1.0.conv1.weight", "downsample_layers.0.0.weight"))
        for name in names
    )


def read_convnet(checkpoint: dict[str, Any], spec: Spec) -> Parts:
    """Encoder and expander of a file of Meta's.

    Args:
        checkpoint: what `checkpoint.read` gives.
        spec: how the user named it.

    Raises:
        UserError: weights missing, left over or of another shape; it names them.
    """
    whole = checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else checkpoint
    whole = plain(whole, spec.place)
    training = any(name.startswith("backbone.") for name in whole)
    weights = {
        name.removeprefix("backbone."): one
        for name, one in whole.items()
        if not training or name.startswith("backbone.")
    }
    if training:
        _check_heads(whole, spec)
    make = _resnet if "layer1.0.conv1.weight" in weights else _convnext
    encoder, origin = make(weights, spec)
    projector = {name.removeprefix("projector."): one for name, one in whole.items() if name.startswith("projector.")}
    notes = ("its maps projector and classifier are left out",) if any(n.startswith(LOCAL) for n in whole) else ()
    return Parts(origin, encoder, projector=_projector(projector, spec) if projector else None, notes=notes)


def _check_heads(whole: Weights, spec: Spec) -> None:
    strange = [name for name in whole if not name.startswith(("backbone.", "projector.", *LOCAL))]
    if strange:
        raise UserError(f"{spec.place}: weights not of this architecture: {', '.join(sorted(strange)[:5])}")


def _part(name: str, options: dict[str, Any], weights: Weights, spec: Spec) -> Part:
    args = {
        "name": name, "image_size": spec.options.get("image_size", 224), "cifar_stem": False,
        "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "options": options,
    }  # fmt: skip
    return Part({"class": "TimmEncoder", "args": args}, {f"model.{name}": one for name, one in weights.items()})


def _resnet(weights: Weights, spec: Spec) -> tuple[Part, str]:
    stages = [layers(weights, f"layer{i}") for i in range(1, 5)]
    last = "conv3" if "layer1.0.conv3.weight" in weights else "conv2"
    stem = _weight(weights, "conv1.weight", spec).shape[0]
    options: dict[str, Any] = {"layers": stages}
    if stem != 64:
        options["channels"] = [stem * 2**i for i in range(4)]
    name = "resnet50" if last == "conv3" else "resnet18"
    return _part(name, options, weights, spec), f"ResNet {stages}, stem of {stem} (Meta: VICReg, VICRegL)"


def _convnext(weights: Weights, spec: Spec) -> tuple[Part, str]:
    depths = [layers(weights, f"stages.{i}") for i in range(layers(weights, "stages"))]
    dims = [_weight(weights, f"stages.{i}.0.dwconv.weight", spec).shape[0] for i in range(len(depths))]
    options = {"depths": depths, "dims": dims, "head_norm_first": True}
    name = "convnext_tiny"
    if "stages.0.0.gamma" not in weights:  # without layer scale: timm has that in the second version, which adds a norm
        name, options["use_grn"] = "convnextv2_tiny", False
    return _part(name, options, _renamed(weights), spec), f"ConvNeXt {depths} x {dims} (Meta: VICRegL)"


def _renamed(weights: Weights) -> Weights:
    new = {}
    for name, tensor in weights.items():
        for pattern, ours in CONVNEXT:
            changed = re.sub(pattern, ours, name)
            if changed != name:
                name = changed
                break
        new[name] = tensor
    return new


def _weight(weights: Weights, name: str, spec: Spec) -> Tensor:
    if name not in weights:
        raise UserError(f"{spec.place}: weights missing: {name}")
    return weights[name]


def _projector(weights: Weights, spec: Spec) -> Part:
    """An expander: the linear layers have matrices, the batch norms between them have none."""
    matrices = [one for name, one in sorted(weights.items(), key=_place) if name.endswith("weight") and one.dim() == 2]
    if not matrices:
        raise UserError(f"{spec.place}: the projector has no linear layer; half a projector is none")
    widths = [one.shape[0] for one in matrices]
    args = {"encoder_width": matrices[0].shape[1], "hidden": widths[:-1], "out": widths[-1]}
    return Part({"class": "Projector", "args": args}, weights)


def _place(item: tuple[str, Tensor]) -> int:
    number = item[0].split(".")[0]
    return int(number) if number.isdecimal() else -1
