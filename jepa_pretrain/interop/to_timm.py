"""A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` opens."""

import copy
from pathlib import Path

import timm
import torch
from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.comparing import agreement
from jepa_pretrain.interop.placing import placed_folder
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT

FILES = {"config.json", "model.safetensors"}
NAME = "vit_base_patch16_224"  # whose every size is an argument


def write_timm(encoder: nn.Module, folder: Path) -> float:
    """Write an encoder for timm, open it with timm and compare.

    Args:
        encoder: A `ViT` of pictures or a `TimmEncoder`.
        folder: Where to write.

    Returns:
        The largest difference of token entries.

    Raises:
        UserError: timm has no such architecture, or what it reads is not the same.
    """
    name, model, options = _as_timm(encoder)
    size, pixels = encoder.image_size, {key: list(encoder.config[key]) for key in ("mean", "std")}
    with placed_folder(folder, FILES) as fresh:
        timm.models.save_for_hf(
            model, fresh, safe_serialization=True, model_args=options,
            model_config={"architecture": name, "num_classes": 0, "pretrained_cfg": pixels},
            data_config={"input_size": (3, size, size)} | pixels,
        )  # fmt: skip
        again = timm.create_model(f"local-dir:{fresh}", pretrained=True, num_classes=0, global_pool="").eval()
        ours = encoder if isinstance(encoder, TimmEncoder) else None

        def tokens(images):
            features = again.forward_features(encoder.normalise(images.unsqueeze(2)).squeeze(2))
            return features if ours is None else ours._tokens(features, ours.width)

        return agreement(encoder, tokens, str(folder))


def _as_timm(encoder: nn.Module) -> tuple[str, nn.Module, dict]:
    """timm's name, its model with our weights, and the arguments that make it again."""
    if type(encoder) is ViT and encoder.config["tubelet"] == 1 and encoder.grid.t == 1:
        return NAME, *_vit(encoder)
    if not isinstance(encoder, TimmEncoder):
        raise UserError(f"timm has no {type(encoder).__name__} of this kind: pictures and sine-cosine positions only")
    config, options = encoder.config, dict(encoder.config.get("options", {}))
    odd = [key for key in ("cifar_stem", "eps") if config.get(key)] + (["channels"] if "channels" in options else [])
    if odd:
        raise UserError(f"timm's {config['name']} cannot be told its {', '.join(odd)}: export it as ours or as a graph")
    if timm.get_pretrained_cfg(config["name"]).fixed_input_size:
        options["img_size"] = config["image_size"]
    plain = copy.deepcopy(encoder.model).to(memory_format=torch.contiguous_format)  # safetensors knows no other
    return config["name"], plain, options


def _vit(encoder: ViT) -> tuple[nn.Module, dict]:
    own = encoder.config
    options = {
        "img_size": own["image_size"], "patch_size": own["patch"], "embed_dim": own["width"], "depth": own["depth"],
        "num_heads": own["heads"], "mlp_ratio": own["mlp_ratio"], "class_token": False,
    }  # fmt: skip
    model = timm.create_model(NAME, num_classes=0, global_pool="", **options)
    model.load_state_dict(encoder.state_dict())
    return model, options
