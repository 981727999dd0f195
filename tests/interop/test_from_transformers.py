"""transformers' own models with random weights, saved by it and loaded here; and back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import Masks, UserError
from jepa_pretrain.interop.reading import read_parts
from jepa_pretrain.interop.spec import parse
from jepa_pretrain.models.normalise import Normalise

transformers = pytest.importorskip("transformers")
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
IJEPA = SMALL | dict(intermediate_size=72)
HALF = Normalise((0.5,) * 3, (0.5,) * 3)
IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def saved(model, folder, faint=1.0):
    """The model with all of its weights drawn anew, since many of them begin as zeros and ones.

    Faint embeddings make the first layer norm's epsilon felt.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, one in model.named_parameters():
            one.copy_(torch.randn_like(one) * 0.15 + (0.8 if "norm" in name and "weight" in name else 0))
            one.mul_(faint if "embeddings" in name else 1.0)
    model.eval().save_pretrained(folder)
    return model


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def pixels(normalise, images):
    return normalise(images.unsqueeze(2)).squeeze(2)


@pytest.mark.parametrize(("eps", "kind"), [(1e-6, "ViT"), (1e-12, "TimmEncoder")])
@pytest.mark.parametrize("bias", [True, False])
def test_ijepa(tmp_path, eps, kind, bias):
    config = transformers.IJepaConfig(**IJEPA, layer_norm_eps=eps, qkv_bias=bias)
    model = saved(transformers.IJepaModel(config), tmp_path, faint=0.002)
    frozen, images = FrozenEncoder.load(tmp_path), torch.rand(3, 3, 16, 16)
    assert type(frozen.encoder).__name__ == kind
    with torch.no_grad():
        close(frozen(images), model(pixels(IMAGENET, images)).last_hidden_state)


def test_ijepa_at_another_resolution(tmp_path):
    model = saved(transformers.IJepaModel(transformers.IJepaConfig(**IJEPA, layer_norm_eps=1e-6)), tmp_path)
    images = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        expected = model(pixels(IMAGENET, images), interpolate_pos_encoding=True).last_hidden_state
    close(FrozenEncoder.load(tmp_path, image_size=24)(images), expected)


@pytest.mark.parametrize("size", [16, 24])
def test_vit_and_its_own_pixels(tmp_path, size):
    model = saved(transformers.ViTModel(transformers.ViTConfig(**SMALL, intermediate_size=64)), tmp_path)
    frozen, images = FrozenEncoder.load(tmp_path, image_size=size), torch.rand(2, 3, size, size)
    with torch.no_grad():
        expected = model(pixels(HALF, images), interpolate_pos_encoding=size != 16).last_hidden_state[:, 1:]
    close(frozen(images), expected)
    assert any("pooler.dense.weight" in note for note in frozen.provenance["notes"])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    again = FrozenEncoder.load(tmp_path, image_size=size)
    assert again.encoder.normalise.mean.flatten().tolist() == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("registers", [0, 3])
def test_dinov2(tmp_path, registers, gated):
    options = SMALL | dict(mlp_ratio=2, use_swiglu_ffn=gated)
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**options, num_register_tokens=registers)
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**options))
    saved(model, tmp_path)
    for size in (16, 24):
        frozen, images = FrozenEncoder.load(tmp_path, image_size=size), torch.rand(2, 3, size, size)
        with torch.no_grad():
            close(frozen(images), model(pixels(IMAGENET, images)).last_hidden_state[:, 1 + registers :])


def test_a_swiglu_whose_halves_lie_apart_or_together(tmp_path):
    """transformers has renamed them between versions."""
    saved(transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, mlp_ratio=2, use_swiglu_ffn=True)), tmp_path)
    weights, images = load_file(tmp_path / "model.safetensors"), torch.rand(2, 3, 16, 16)
    before = FrozenEncoder.load(tmp_path)(images)
    other, (old, new) = {}, (("weights_in", "weights_out"), ("gate_proj", "up_proj", "down_proj"))
    for name, one in weights.items():
        if "weights_in" in name:
            other |= dict(zip((name.replace("weights_in", half) for half in new[:2]), one.chunk(2), strict=True))
        elif "gate_proj" in name:
            other[name.replace("gate_proj", old[0])] = torch.cat([one, weights[name.replace("gate_proj", "up_proj")]])
        elif "up_proj" not in name:
            other[name.replace("weights_out", "DOWN").replace("down_proj", "weights_out").replace("DOWN", new[2])] = one
    assert other.keys() != weights.keys()
    save_file({name: one.contiguous() for name, one in other.items()}, tmp_path / "model.safetensors")
    assert torch.equal(FrozenEncoder.load(tmp_path)(images), before)


def vjepa2(**changes):
    config = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, crop_size=16, patch_size=4, frames_per_clip=4,
        pred_hidden_size=28, pred_num_attention_heads=2, pred_num_hidden_layers=2, pred_num_mask_tokens=3,
    )  # fmt: skip
    return transformers.VJEPA2Model(transformers.VJEPA2Config(**config | changes))


@pytest.mark.parametrize("changes", [{}, {"hidden_size": 36, "mlp_ratio": 2.5, "crop_size": 12, "frames_per_clip": 8}])
def test_vjepa2_encoder_and_predictor(tmp_path, changes):
    model = saved(vjepa2(**changes), tmp_path)
    frozen, config = FrozenEncoder.load(tmp_path), model.config
    clip = torch.rand(2, 3, config.frames_per_clip, config.crop_size, config.crop_size)
    seen, hidden = torch.tensor([[0, 5, 3], [10, 2, 7]]), torch.tensor([[4, 6], [17, 0]])
    with torch.no_grad():
        out = model(IMAGENET(clip).transpose(1, 2), context_mask=[seen], target_mask=[hidden])
        tokens = frozen(clip)
        close(tokens, out.last_hidden_state)
        context = tokens.gather(1, seen[..., None].expand(-1, -1, tokens.shape[-1]))
        predictor = read_parts(parse(str(tmp_path))).predictor.make("folder")
        close(predictor(context, Masks(seen, hidden[:, None]))[:, 0], out.predictor_output.last_hidden_state)


def test_a_model_with_a_head_in_several_files(tmp_path):
    config = transformers.IJepaConfig(**IJEPA, layer_norm_eps=1e-6)
    model = transformers.IJepaForImageClassification(config)
    saved(model, tmp_path / "whole")
    model.save_pretrained(tmp_path / "pieces", max_shard_size="20KB")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 1
    images = torch.rand(2, 3, 16, 16)
    found = FrozenEncoder.load(tmp_path / "pieces")
    assert torch.equal(found(images), FrozenEncoder.load(tmp_path / "whole")(images))
    assert any("classifier" in note for note in found.provenance["notes"])
    next((tmp_path / "pieces").glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"no weights at .*, which .* names"):
        FrozenEncoder.load(tmp_path / "pieces")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, r"missing: blocks\.2"),
        ({"hidden_act": "relu"}, "expected hidden_act gelu, found 'relu'"),
        ({"image_size": 32}, "expected positions of 32 px, found those of 16 px"),
        ({"model_type": "bert"}, "model_type 'bert' is not read"),
        ({"layer_norm_eps": None}, "expected layer_norm_eps"),
        ({"num_register_tokens": 4}, "expected 4 register tokens, found 0"),
        ({"use_swiglu_ffn": "yes"}, "expected use_swiglu_ffn False, found 'yes'"),
        ({"hidden_size": "wide"}, "expected a whole number for hidden_size"),
        ({"intermediate_size": 100}, r"mlp\.fc1.* should have shape"),
    ],
)
def test_a_config_that_contradicts_the_weights(tmp_path, changes, message):
    saved(transformers.IJepaModel(transformers.IJepaConfig(**IJEPA, layer_norm_eps=1e-6)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message):
        FrozenEncoder.load(tmp_path)


def test_half_the_predictor_is_missing_or_what_the_config_says_of_it(tmp_path):
    saved(vjepa2(), tmp_path)
    config = (tmp_path / "config.json").read_text()
    for key, value in (("frames_per_clip", None), ("tubelet_size", 0), ("mlp_ratio", "x")):
        (tmp_path / "config.json").write_text(json.dumps(json.loads(config) | {key: value}))
        with pytest.raises(UserError, match=rf"config\.json: expected .*{key}, found"):
            FrozenEncoder.load(tmp_path)
    (tmp_path / "config.json").write_text(config)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {n: one for n, one in weights.items() if not n.startswith("predictor.proj")}, tmp_path / "model.safetensors"
    )
    with pytest.raises(UserError, match=r"missing: predictor_proj\.bias, predictor_proj\.weight"):
        read_parts(parse(str(tmp_path))).predictor.make("folder")
