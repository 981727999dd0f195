import json

import pytest
import torch

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop import export
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT


def tiny_vit():
    torch.manual_seed(3)
    return ViT(image_size=16, patch=4, width=24, depth=3, heads=2)


def tiny_resnet():
    torch.manual_seed(3)
    encoder = TimmEncoder("test_resnet", image_size=32)
    encoder.train()(torch.rand(8, 3, 1, 32, 32))  # moves the batch-norm statistics off their initial values
    return encoder


@pytest.fixture
def folder(tmp_path):
    return export.write(tiny_vit(), tmp_path / "export", {"recipe": "demo", "step": 7, "metrics": {"top1": 0.5}})


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_tokens_are_bit_equal_to_the_training_encoders(make, tmp_path):
    encoder = make()
    frozen = FrozenEncoder.load(export.write(encoder, tmp_path / "export", {}))
    size = encoder.image_size
    clip = torch.randint(0, 256, (5, 3, 1, size, size), dtype=torch.uint8)
    encoder.eval()
    with torch.no_grad():
        expected, layers = encoder(clip), encoder.forward_layers(clip, 2)
    assert torch.equal(frozen(clip), expected)
    assert torch.equal(frozen(clip[:, :, 0]), expected)
    assert expected.shape == (5, frozen.grid.tokens, frozen.width)
    for ours, theirs in zip(frozen.forward_layers(clip, 2), layers, strict=True):
        assert torch.equal(ours, theirs)


def test_it_stays_frozen(folder):
    frozen = FrozenEncoder.load(folder).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen(torch.rand(1, 3, 16, 16, requires_grad=True)).requires_grad


def test_folder_says_what_it_is(folder):
    frozen = FrozenEncoder.load(folder)
    assert frozen.provenance["recipe"] == "demo" and frozen.provenance["step"] == 7
    assert frozen.image_size == 16 and frozen.grid == (1, 4, 4) and frozen.width == 24
    card = (folder / "README.md").read_text()
    assert "FrozenEncoder.load" in card and "demo" in card and "top1" in card
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_random_specs_are_untrained_and_the_same_each_time(folder):
    trained = FrozenEncoder.load(folder)
    fresh, again = FrozenEncoder.load(f"random:{folder}"), FrozenEncoder.load(f"random:{folder}")
    clip = torch.rand(2, 3, 16, 16)
    assert fresh.untrained and not trained.untrained and fresh.provenance == {}
    assert torch.equal(fresh(clip), again(clip)) and not torch.allclose(fresh(clip), trained(clip))
    assert FrozenEncoder.load("random:test_resnet", image_size=32).untrained


def test_loading_leaves_the_random_state_alone(folder):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    FrozenEncoder.load(f"random:{folder}")
    assert torch.equal(torch.rand(1), expected)


def test_wrong_places_and_sizes(folder, tmp_path):
    with pytest.raises(UserError, match=r"nothing at .*nowhere: expected a folder"):
        FrozenEncoder.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        FrozenEncoder.load(tmp_path / "empty")
    with pytest.raises(UserError, match="not_a_model"):
        FrozenEncoder.load("random:not_a_model")
    with pytest.raises(UserError, match="takes 16x16 pixels, found 32x32"):
        FrozenEncoder.load(folder)(torch.rand(1, 3, 32, 32))
    with pytest.raises(UserError, match="expected images"):
        FrozenEncoder.load(folder)(torch.rand(3, 16, 16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 48}, "expected width 24 .*found 48"),
        ({"grid": [1, 2, 2]}, "expected grid"),
        ({"normalisation": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "expected mean"),
        ({"normalisation": {}}, "expected mean"),
        ({"format": 99}, "format 1"),
        ({"architecture": {"class": "os.system", "args": {}}}, "unknown encoder class 'os.system'"),
        ({"architecture": {"class": "ViT", "args": {"no_such": 1}}}, "refuses these arguments"),
        ({"architecture": {"class": "ViT", "args": {"width": "wide"}}}, "refuses these arguments"),
        ({"architecture": "ViT"}, "must read"),
    ],
)
def test_tampered_config(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(UserError, match=message):
        FrozenEncoder.load(folder)


def test_config_of_another_width_contradicts_the_weights(folder):
    args = {**tiny_vit().config, "width": 48}
    edit(folder, architecture={"class": "ViT", "args": args}, width=48)
    with pytest.raises(UserError, match=r"should have shape .*48.*found .*24"):
        FrozenEncoder.load(folder)


def test_config_of_another_depth_contradicts_the_weights(folder):
    edit(folder, architecture={"class": "ViT", "args": {**tiny_vit().config, "depth": 2}})
    with pytest.raises(UserError, match=r"not of this architecture: blocks\.2"):
        FrozenEncoder.load(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="truncated or damaged"):
        FrozenEncoder.load(folder)


def test_damaged_or_partial_config(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[:50])
    with pytest.raises(UserError, match="damaged"):
        FrozenEncoder.load(folder)
    (folder / "config.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="lacks"):
        FrozenEncoder.load(folder)
