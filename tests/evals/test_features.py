import io

import pytest
import torch
from known_features import write_shard
from rich.console import Console
from torch import nn

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.evals import kept
from jepa_pretrain.evals.calibration import calibrate, needs_calibration
from jepa_pretrain.evals.encoders import Pixels, digest
from jepa_pretrain.evals.features import extract, load
from jepa_pretrain.evals.reader import Reader
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT


class Counting(FrozenEncoder):
    """Counts the pictures that it is shown."""

    seen = 0

    def forward_layers(self, images, layers):
        self.seen += len(images)
        return super().forward_layers(images, layers)


def counting(seed=0):
    torch.manual_seed(seed)
    return Counting(ViT(image_size=16, patch=8, width=12, depth=6, heads=2))


@pytest.fixture
def shard(tmp_path):
    return write_shard(tmp_path / "a.tar")


@pytest.fixture
def reader(tmp_path):
    return Reader(batch_size=10, workers=0, cache=str(tmp_path / "cache"))


QUIET = Console(file=io.StringIO())


def test_features_are_pooled_tokens_in_order(shard, reader):
    encoder = counting()
    found, _ = load(encoder, shard, shard, reader, QUIET)
    clip = torch.cat([batch.views[0] for batch in batches(shard, CentreCrop(16), 24, 0)])
    assert found.layers.shape == (24, 4 * 12) and found.width == 12
    assert torch.allclose(found.last, encoder(clip).mean(dim=1), atol=1e-6)
    older = encoder.encoder.forward_layers(clip, 4)[0].mean(dim=1)
    assert torch.allclose(found.layers[:, :12], older, atol=1e-6)
    assert found.label.tolist() == [i % 2 for i in range(24)]


def test_second_run_does_not_call_the_encoder(shard, reader):
    first, second = counting(), counting()
    ours, _ = load(first, shard, shard, reader, QUIET)
    theirs, _ = load(second, shard, shard, reader, QUIET)
    assert first.seen == 24 and second.seen == 0
    assert torch.equal(ours.layers, theirs.layers) and torch.equal(ours.label, theirs.label)


def test_other_weights_or_pictures_are_computed_anew(tmp_path, shard, reader):
    load(counting(0), shard, shard, reader, QUIET)
    other = counting(1)
    load(other, shard, shard, reader, QUIET)
    assert other.seen == 24
    again = counting(0)
    write_shard(tmp_path / "a.tar", seed=5)  # same name, same size, other pictures
    load(again, shard, shard, reader, QUIET)
    assert again.seen == 24


def test_a_damaged_cache_file_is_replaced(tmp_path, shard, reader):
    load(counting(), shard, shard, reader, QUIET)
    (kept,) = (tmp_path / "cache" / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    again = counting()
    load(again, shard, shard, reader, QUIET)
    assert again.seen == 24


def test_a_full_disk_is_one_line(shard, reader, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "save_file", full)
    with pytest.raises(UserError, match="No space left"):
        load(counting(), shard, shard, reader, QUIET)
    assert not list((tmp_path / "cache" / "features").iterdir())


def test_diverged_encoder(shard, reader):
    encoder = counting()
    nn.init.constant_(encoder.encoder.norm.weight, torch.nan)
    with pytest.raises(UserError, match="not finite"):
        load(encoder, shard, shard, reader, QUIET)


def test_digest_tells_encoders_apart():
    assert digest(counting(0)) == digest(counting(0)) != digest(counting(1))
    assert digest(Pixels(32)) != digest(Pixels(16))


def test_calibration_sets_batch_norm_statistics(shard, reader):
    frozen = FrozenEncoder(TimmEncoder("test_resnet", image_size=16), untrained=True)
    stream = list(batches(shard, CentreCrop(16), 24, 0))
    norm = next(m for m in frozen.modules() if isinstance(m, nn.BatchNorm2d))
    seen = []
    hook = norm.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    calibrate(frozen, stream, torch.device("cpu"))
    hook.remove()
    assert torch.allclose(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-5)
    assert not norm.training and norm.momentum is not None
    tokens = frozen(stream[0].views[0])
    assert torch.equal(tokens, frozen(stream[0].views[0]))


def test_an_untrained_encoder_is_calibrated_before_both_sets_and_cached(tmp_path, shard, reader):
    other = write_shard(tmp_path / "b.tar", 20, seed=1)

    def fresh():
        torch.manual_seed(0)
        return FrozenEncoder(TimmEncoder("test_resnet", image_size=16), untrained=True)

    encoder = fresh()
    train, test = load(encoder, shard, other, reader, QUIET)
    stream = next(iter(batches(other, CentreCrop(16), 20, 0)))
    assert torch.allclose(encoder(stream.views[0]).mean(dim=1), test.last, atol=1e-5)
    again = fresh()
    before = digest(again)
    cached = load(again, shard, other, reader, QUIET)
    assert digest(again) == before  # nothing was computed
    assert torch.equal(cached[0].layers, train.layers) and torch.equal(cached[1].layers, test.layers)


def test_only_untrained_batch_norms_are_calibrated():
    untrained = FrozenEncoder(TimmEncoder("test_resnet", image_size=16), untrained=True)
    assert needs_calibration(untrained)
    assert not needs_calibration(FrozenEncoder(untrained.encoder))
    assert not needs_calibration(FrozenEncoder(counting().encoder, untrained=True))


def test_pixels_are_the_picture(shard, reader):
    found, _ = load(Pixels(16), shard, shard, reader, QUIET)
    clip = next(iter(batches(shard, CentreCrop(16), 24, 0))).views[0]
    assert torch.allclose(found.last, clip.flatten(1) / 255) and found.width == 3 * 16 * 16


def test_an_empty_stream_is_refused():
    with pytest.raises(UserError, match="no readable picture"):
        extract(Pixels(), [], 0, "nothing", QUIET)
