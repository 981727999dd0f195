"""What is exported opens on the other side, is the same there, and comes back bit for bit."""

import sys

import pytest
import timm
import torch
from small_checkpoints import save_checkpoint

from jepa_pretrain import FrozenEncoder, cli
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop import comparing, formats, to_graph
from jepa_pretrain.interop.export import write
from jepa_pretrain.models.predictor import TiledRotaryPredictor
from jepa_pretrain.models.rotary_vit import RotaryViT, TiledRotaryViT
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT


def stirred(module):
    """Weights that are far from their first values, so that no two parts can be mistaken for each other."""
    torch.manual_seed(1)
    with torch.no_grad():
        for one in module.parameters():
            one.add_(torch.randn_like(one) * 0.1)
    return module


def picture(depth=2):
    return stirred(ViT(image_size=16, patch=4, width=32, depth=depth, heads=2, mlp_ratio=2.5, std=(0.2, 0.3, 0.4)))


def video(depth=2):
    return stirred(TiledRotaryViT(image_size=12, patch=4, width=32, depth=depth, heads=2, frames=4, tubelet=2))


def folder(encoder, path):
    return str(write(encoder, path / "ours", {"step": 7}))


def same_weights(first, second):
    theirs = second.state_dict()
    return first.state_dict().keys() == theirs.keys() and all(
        torch.equal(one, theirs[n]) for n, one in first.state_dict().items()
    )


@pytest.mark.parametrize(("make", "format"), [(picture, "timm"), (picture, "transformers"), (video, "transformers")])
def test_there_and_back_bit_for_bit(tmp_path, make, format, capsys):
    encoder = make()
    formats.export(folder(encoder, tmp_path), str(tmp_path / "theirs"), format)
    assert "read again: largest difference" in capsys.readouterr().out
    back = FrozenEncoder.load(tmp_path / "theirs")
    assert back.config == FrozenEncoder(encoder).config and same_weights(encoder, back.encoder)


def test_timm_opens_it_by_itself(tmp_path):
    encoder = picture().eval()
    formats.export(folder(encoder, tmp_path), str(tmp_path / "theirs"), "timm")
    model = timm.create_model(f"local-dir:{tmp_path}/theirs", pretrained=True, num_classes=0).eval()
    assert model.pretrained_cfg["std"] == pytest.approx((0.2, 0.3, 0.4)) and model.pretrained_cfg["input_size"] == (
        3,
        16,
        16,
    )
    images = torch.rand(2, 3, 1, 16, 16)
    with torch.no_grad():
        found = model.forward_features(encoder.normalise(images).squeeze(2))
        torch.testing.assert_close(found, encoder(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_timms_own_models_through_its_own_folder(tmp_path, name):
    encoder = stirred(TimmEncoder(name, image_size=32)).eval()
    model = timm.create_model(name, num_classes=5, **({"img_size": 32} if name == "test_vit" else {}))
    model.load_state_dict(encoder.model.state_dict(), strict=False)
    timm.models.save_for_hf(model, tmp_path / "theirs", safe_serialization=True)
    images = torch.rand(2, 3, 32, 32)
    found = FrozenEncoder.load(f"timm:local-dir:{tmp_path}/theirs", image_size=32)
    assert any("left out" in note for note in found.provenance["notes"])  # the classifier
    with torch.no_grad():
        torch.testing.assert_close(found(images), encoder(images.unsqueeze(2)), atol=1e-5, rtol=0)


def test_a_model_of_timms_there_and_back(tmp_path):
    encoder = stirred(TimmEncoder("test_resnet", image_size=32))
    formats.export(folder(encoder, tmp_path), str(tmp_path / "theirs"), "timm")
    assert same_weights(encoder, FrozenEncoder.load(tmp_path / "theirs").encoder)


def test_the_predictor_goes_along(tmp_path):
    encoder = video()
    predictor = stirred(TiledRotaryPredictor(32, encoder.grid, width=24, depth=1, heads=2))
    description = {"class": "TiledRotaryPredictor", "args": predictor.config}
    state = {f"target.module.{n}": one for n, one in encoder.state_dict().items()}
    state |= {f"predictor.{n}": one for n, one in predictor.state_dict().items()}
    entry = {"prefix": "target.module.", "config": {"class": "TiledRotaryViT", "args": encoder.config}}
    path = save_checkpoint(tmp_path / "last.ckpt", encoder, state_dict=state, export=entry | {"predictor": description})
    formats.export(str(path), str(tmp_path / "theirs"), "transformers")
    assert same_weights(predictor, formats.predictor_of(str(tmp_path / "theirs")))
    formats.export(folder(encoder, tmp_path), str(tmp_path / "alone"), "transformers")
    assert formats.predictor_of(str(tmp_path / "alone")) is None


@pytest.mark.parametrize(("make", "format"), [(video, "onnx"), (video, "torchscript"), (picture, "torch-export")])
def test_graphs_run_with_any_batch(tmp_path, make, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    formats.export(
        folder(make(depth=1), tmp_path), str(tmp_path / "graph.pt2"), format
    )  # which compares batches of 1 and 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.pt2", "ours"]


def test_what_differs_when_it_is_read_again_is_not_kept(tmp_path, monkeypatch):
    encoder = picture(depth=1)
    forward = to_graph.Graph.forward
    monkeypatch.setattr(to_graph.Graph, "forward", lambda self, images: forward(self, images) * 1.001)
    with pytest.raises(UserError, match=r"tokens differ by .* when read again"):
        formats.export(folder(encoder, tmp_path), str(tmp_path / "graph"), "torchscript")
    assert not (tmp_path / "graph").exists()
    monkeypatch.setattr(to_graph.Graph, "forward", lambda self, images: forward(self, images)[:, 1:])
    with pytest.raises(UserError, match=r"expected tokens \(1, 16, 32\) when read again, found \(1, 15, 32\)"):
        formats.export(folder(encoder, tmp_path), str(tmp_path / "graph"), "torchscript")
    assert comparing.TOLERANCE <= 1e-4


def test_architectures_that_the_others_lack(tmp_path):
    mended = RotaryViT(image_size=12, patch=4, width=32, depth=1, heads=2, frames=4, tubelet=2)
    for format in ("timm", "transformers"):
        with pytest.raises(UserError, match="has no RotaryViT of this kind"):
            formats.export(folder(mended, tmp_path), str(tmp_path / "theirs"), format)


def test_a_dry_run_shows_what_would_be_uploaded(tmp_path, capsys):
    formats.export(folder(picture(), tmp_path), str(tmp_path / "out"), upload="me/encoder", dry_run=True)
    out = capsys.readouterr().out
    assert "would upload 3 files" in out and "to me/encoder" in out and "model.safetensors" in out


@pytest.mark.parametrize(
    "named", [("--encoder", "{}", "{}/out"), ("{}/out", "--encoder={}"), ("{}", "--out", "{}/out")]
)
def test_at_the_shell_arguments_have_their_place_or_their_name(tmp_path, named, capsys):
    encoder = folder(picture(1), tmp_path)
    words = [word.replace("{}/out", str(tmp_path / "out")).replace("{}", encoder) for word in named]
    cli.main(["export", *words])
    assert f"to   {tmp_path / 'out'} (ours)" in capsys.readouterr().out


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers: pip install 'jepa-pretrain\[interop\]'"):
        formats.export(folder(picture(), tmp_path), str(tmp_path / "theirs"), "transformers")
