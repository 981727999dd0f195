"""A folder that transformers' `AutoModel.from_pretrained` opens: I-JEPA's and V-JEPA 2's architectures."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from jepa_pretrain.contracts import Masks, UserError
from jepa_pretrain.interop.comparing import TOLERANCE, agreement, sample
from jepa_pretrain.interop.extras import extra
from jepa_pretrain.interop.placing import placed_folder
from jepa_pretrain.models.predictor import TiledRotaryPredictor
from jepa_pretrain.models.rotary_vit import TiledRotaryViT
from jepa_pretrain.models.vit import ViT

PICTURE, CLIP = "preprocessor_config.json", "video_preprocessor_config.json"
FILES = {"config.json", "model.safetensors", PICTURE, CLIP}
PICTURES = (  # ours, theirs
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.attn\.(query|key|value)\.", r"encoder.layer.\1.attention.attention.\2."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"^norm\.", "layernorm."),
)
CLIPS = (
    (r"^patch_embed\.", "encoder.embeddings.patch_embeddings."),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.layer.\1.attention."),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
    (r"^norm\.", "encoder.layernorm."),
)
PREDICTOR = (
    (r"^predictor_embed\.", "predictor.embeddings.predictor_embeddings."),
    (r"^mask_token$", "predictor.embeddings.mask_tokens"),
    (r"^predictor_blocks\.(\d+)\.attn\.", r"predictor.layer.\1.attention."),
    (r"^predictor_blocks\.(\d+)\.", r"predictor.layer.\1."),
    (r"^predictor_norm\.", "predictor.layernorm."),
    (r"^predictor_proj\.", "predictor.proj."),
)


def write_transformers(encoder: nn.Module, predictor: nn.Module | None, folder: Path) -> float:
    """Write an encoder, with its predictor where transformers has a place for one, open it with transformers, compare.

    Args:
        encoder: A `ViT` of pictures, or a `TiledRotaryViT`.
        predictor: Its predictor; without one, V-JEPA 2's is written with no blocks and is to be left out
            (`skip_predictor=True`).
        folder: Where to write.

    Returns:
        The largest difference of token entries, of the predictor's too.

    Raises:
        UserError: transformers has no such architecture, or what it reads is not the same.
    """
    library = extra("transformers", "a folder of transformers'")
    config, weights, processor = _picture(encoder) if _is_picture(encoder) else _clip(encoder, predictor)
    with placed_folder(folder, FILES) as fresh:
        described = library.AutoConfig.for_model(config.pop("model_type"), **config)
        described.architectures = ["IJepaModel" if processor == PICTURE else "VJEPA2Model"]
        described.save_pretrained(fresh)
        save_file(
            {name: one.contiguous().clone() for name, one in weights.items()},
            fresh / "model.safetensors",
            {"format": "pt"},
        )
        (fresh / processor).write_text(json.dumps(_pixels(encoder, processor), indent=2) + "\n")
        model, said = library.AutoModel.from_pretrained(fresh, output_loading_info=True)
        wrong = [*said["missing_keys"], *said["unexpected_keys"], *said["mismatched_keys"]]
        if wrong:
            raise UserError(f"{folder}: transformers misses or does not know {', '.join(map(str, sorted(wrong)[:5]))}")
        model = model.eval().float()
        if processor == PICTURE:
            return agreement(
                encoder, lambda x: model(_normed(encoder, x.unsqueeze(2)).squeeze(2)).last_hidden_state, str(folder)
            )
        worst = agreement(
            encoder, lambda x: model.get_vision_features(_normed(encoder, x).transpose(1, 2)), str(folder)
        )
        return worst if predictor is None else max(worst, _predictors(encoder, predictor, model, folder))


def _is_picture(encoder: nn.Module) -> bool:
    if type(encoder) is ViT and encoder.config["tubelet"] == 1 and encoder.grid.t == 1:
        return True
    if type(encoder) is TiledRotaryViT and encoder.config["tubelet"] > 1:
        return False
    raise UserError(
        f"transformers has no {type(encoder).__name__} of this kind: a ViT of pictures (I-JEPA) or a TiledRotaryViT "
        "of clips (V-JEPA 2)"
    )


def _normed(encoder: nn.Module, clip: Tensor) -> Tensor:
    return encoder.normalise(clip)


def _picture(encoder: ViT) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    own = encoder.config
    config = {
        "model_type": "ijepa", "hidden_size": own["width"], "num_hidden_layers": own["depth"],
        "num_attention_heads": own["heads"], "intermediate_size": encoder.blocks[0].mlp.fc1.out_features,
        "image_size": own["image_size"], "patch_size": own["patch"], "layer_norm_eps": encoder.norm.eps,
        "qkv_bias": True,
    }  # fmt: skip
    return config, _renamed(encoder.state_dict(), PICTURES), PICTURE


def _clip(encoder: TiledRotaryViT, predictor: nn.Module | None) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    own = encoder.config
    config = {
        "model_type": "vjepa2", "hidden_size": own["width"], "num_hidden_layers": own["depth"],
        "num_attention_heads": own["heads"], "mlp_ratio": own["mlp_ratio"], "crop_size": own["image_size"],
        "patch_size": own["patch"], "frames_per_clip": own["frames"], "tubelet_size": own["tubelet"],
        "layer_norm_eps": encoder.norm.eps, "qkv_bias": True, "pred_num_mask_tokens": 2,
    }  # fmt: skip
    if predictor is None:
        predictor = _no_predictor(encoder)
    elif type(predictor) is not TiledRotaryPredictor or predictor.config["fuse"] is not None:
        raise UserError(
            f"transformers' V-JEPA 2 has no {type(predictor).__name__} of this kind: a TiledRotaryPredictor"
        )
    inner = predictor.config
    config |= {
        "pred_hidden_size": inner["width"], "pred_num_hidden_layers": inner["depth"],
        "pred_num_attention_heads": inner["heads"], "pred_mlp_ratio": 4.0,
    }  # fmt: skip
    state = predictor.state_dict()
    state["mask_token"] = state["mask_token"].expand(2, 1, -1).unsqueeze(1)  # one for each of two masks, the same
    return config, _renamed(encoder.state_dict(), CLIPS) | _renamed(state, PREDICTOR), CLIP


def _no_predictor(encoder: TiledRotaryViT) -> TiledRotaryPredictor:
    """transformers' model has a predictor always; this one has no block and predicts zeros."""
    empty = TiledRotaryPredictor(encoder.width, encoder.grid, width=12, depth=0, heads=1)
    for one in empty.parameters():
        nn.init.zeros_(one)
    return empty


def _renamed(state: dict[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Under their names, queries, keys and values apart."""
    new = {}
    for name, tensor in state.items():
        pieces = {name: tensor}
        if ".attn.qkv." in name:
            pieces = {
                name.replace("qkv", part): one
                for part, one in zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            }
        for piece, one in pieces.items():
            pattern, theirs = next((p, t) for p, t in names if re.search(p, piece))
            new[re.sub(pattern, theirs, piece)] = one
    return new


def _pixels(encoder: nn.Module, processor: str) -> dict[str, Any]:
    size = encoder.image_size
    pixels = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_resize": True}
    pixels |= {"image_mean": encoder.config["mean"], "image_std": encoder.config["std"]}
    if processor == PICTURE:
        return pixels | {"image_processor_type": "ViTImageProcessor", "size": {"height": size, "width": size}}
    crop = {"height": size, "width": size}
    shortest = int(size * 256 / 224)
    return pixels | {
        "video_processor_type": "VJEPA2VideoProcessor",
        "crop_size": crop,
        "size": {"shortest_edge": shortest},
    }


@torch.no_grad()
def _predictors(encoder: nn.Module, predictor: nn.Module, model: Any, folder: Path) -> float:
    """The largest difference of what both predictors predict, of the second half of the tokens from the first."""
    clip = sample(encoder, 2)
    index = torch.arange(encoder.grid.tokens).expand(2, -1)
    seen, hidden = index.tensor_split(2, dim=1)
    out = model(_normed(encoder, clip).transpose(1, 2), context_mask=[seen], target_mask=[hidden])
    ours = predictor(encoder(clip)[:, : seen.shape[1]], Masks(seen, hidden[:, None]))[:, 0]
    worst = (out.predictor_output.last_hidden_state - ours).abs().max().item()
    if not worst <= TOLERANCE * max(1.0, ours.abs().max().item()):
        raise UserError(f"{folder}: the predictor's tokens differ by {worst:.2g} when read again")
    return worst
