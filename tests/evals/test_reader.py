"""Clips in evaluations: which frames an encoder is shown, and that features are averages over clips."""

import io
from itertools import pairwise

import pytest
import torch
from known_features import write_shard
from rich.console import Console
from small_hierarchies import first, hierarchy, upper
from small_shards import write_tar
from small_videos import VALUES, frames, video

from jepa_pretrain import FrozenEncoder, cli
from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.encoders import Pixels
from jepa_pretrain.evals.features import load
from jepa_pretrain.evals.reader import Reader
from jepa_pretrain.models.vit import ViT


class Watched(FrozenEncoder):
    """Remembers the clips that it is shown."""

    def forward_layers(self, images, layers):
        self.shown = [*getattr(self, "shown", []), images]
        return super().forward_layers(images, layers)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Six videos of 20 numbered frames, two classes."""
    samples = [(f"v{i}", {"mp4": video(frames(20)), "cls": str(i % 2).encode()}) for i in range(6)]
    return str(write_tar(tmp_path_factory.mktemp("videos") / "a.tar", samples))


def watched(count):
    torch.manual_seed(0)
    return Watched(ViT(16, 8, 12, 2, 2, frames=count, tubelet=2 if count > 1 else 1), name="ours")


def read(encoder, shard, tmp_path, **options):
    said = io.StringIO()
    reader = Reader(batch_size=6, workers=0, cache=str(tmp_path / "cache"), **options)
    features, _ = load(encoder, shard, shard, reader, Console(file=said))
    return features, said.getvalue()


def numbers(clip):
    """Which of the numbered frames the first clip of (B, C, T, H, W) holds."""
    values = clip[0, 0, :, -2:, -2:].float().mean((-1, -2))  # (T,)
    return [int((torch.tensor(VALUES) - value).abs().argmin()) for value in values]


def test_an_encoder_of_clips_sees_several_of_each_video_and_their_features_are_averaged(videos, tmp_path):
    encoder = watched(4)
    found, said = read(encoder, videos, tmp_path, clips=3, stride=2)
    assert [numbers(clip) for clip in encoder.shown[:3]] == [[2, 4, 6, 8], [7, 9, 11, 13], [11, 13, 15, 17]]
    each = [encoder(clip).mean(dim=1) for clip in encoder.shown[:3]]
    assert torch.allclose(found.last, torch.stack(each).mean(0), atol=1e-6)
    assert not torch.allclose(each[0], each[2], atol=1e-3)
    assert "clips of 4 frames, one frame in 2; 3 from each" in said


def test_a_rate_instead_of_a_stride(videos, tmp_path):
    encoder = watched(4)
    read(encoder, videos, tmp_path, fps=5)
    seen = numbers(encoder.shown[0])
    assert [b - a for a, b in pairwise(seen)] == [5, 5, 5]  # the videos have 25 a second


def test_an_encoder_of_pictures_sees_single_frames(videos, tmp_path):
    encoder = watched(1)
    _, said = read(encoder, videos, tmp_path, clips=2)
    assert [numbers(clip) for clip in encoder.shown[:2]] == [[5], [15]]
    assert "ours sees single frames" in said


def test_an_encoder_of_clips_sees_pictures_held(tmp_path):
    encoder = watched(4)
    _, said = read(encoder, write_shard(tmp_path / "a.tar"), tmp_path)
    assert encoder.shown[0].shape[2] == 4 and torch.equal(encoder.shown[0][:, :, 0], encoder.shown[0][:, :, 3])
    assert "each picture is held" in said


@pytest.mark.parametrize("change", [{"clips": 2}, {"stride": 2}, {"fps": 5.0}])
def test_other_clips_are_not_taken_from_the_cache(videos, tmp_path, change):
    base, _ = read(watched(4), videos, tmp_path)
    encoder = watched(4)
    other, _ = read(encoder, videos, tmp_path, **change)
    assert encoder.shown and not torch.equal(base.layers, other.layers)
    again = watched(4)
    read(again, videos, tmp_path, **change)
    assert not hasattr(again, "shown")


def test_pixels_of_several_frames(videos, tmp_path):
    found, _ = read(Pixels(8, frames=2), videos, tmp_path)
    one, _ = read(Pixels(8), videos, tmp_path)
    assert found.width == 2 * one.width


def test_a_hierarchy_gives_the_layers_that_it_has(videos, tmp_path):
    frozen = FrozenEncoder(hierarchy(first(), upper(of_states=True), reads=1))
    found, _ = read(frozen, videos, tmp_path)
    assert found.layers.shape == (6, 32) and found.width == 16


def test_reading_options_are_options_of_the_command(videos, tmp_path, capsys):
    out = tmp_path / "r.json"
    options = ["--clips", "3", "--frames=2", "--workers=0", "--k=[1]", f"--cache={tmp_path}", f"--out={out}"]
    cli.main(["eval", "knn", "pixels", videos, videos, *options])
    assert "pixels sees clips of 2 frames, successive frames; 3 from each" in capsys.readouterr().out
    assert '"clips": 3' in out.read_text()


def test_what_cannot_be_is_one_line():
    for options in ({"clips": 0}, {"stride": 0}, {"fps": 0.0}, {"fps": 5.0, "stride": 2}, {"device": "abacus"}):
        with pytest.raises(UserError):
            Reader(**options)
