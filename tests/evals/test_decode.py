"""Decoding of known factors: the right frame, the right object, the honest split."""

import io
import json

import pytest
import torch
from known_features import write_shard
from rich.console import Console
from small_hierarchies import first, hierarchy, upper

from jepa_pretrain import FrozenEncoder, cli
from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.data.moving import moving
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.truth import truth
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.evals.decode import PENALTIES, measure
from jepa_pretrain.evals.encoders import Pixels
from jepa_pretrain.evals.reader import Reader
from jepa_pretrain.evals.states import States, layers_of, moment_of, read
from jepa_pretrain.models.vit import ViT

CPU = torch.device("cpu")
QUIET = Console(file=io.StringIO())
READER = Reader(batch_size=8, workers=0)


@pytest.fixture(scope="module")
def bounce(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounce")
    moving(str(folder), train=24, val=12, size=16, frames=10)
    return folder


class Frames(Pixels):
    """A token for each frame: its pixels."""

    name, untrained = "pixels", False

    def __init__(self, frames):
        super().__init__(16, frames)
        self.grid = Grid(frames, 1, 1)

    def forward(self, images):
        return images.transpose(1, 2).flatten(2).float()


def known(n, seed=0, noise=0.0):
    """States that hold the velocity and the shape in one layer, and nothing in the other."""
    rng = torch.Generator().manual_seed(seed)
    velocity, position = torch.randn(n, 2, generator=rng), torch.rand(n, 2, generator=rng)
    shape = torch.randint(0, 4, (n,), generator=rng)
    told = torch.cat([velocity, torch.eye(4)[shape]], dim=1) @ torch.randn(6, 20, generator=torch.manual_seed(3))
    layers = {"told": told + noise * torch.randn(n, 20, generator=rng), "silent": torch.randn(n, 20, generator=rng)}
    colour = torch.ones(n, 3)
    facts = {"position": position, "velocity": velocity, "colour": colour, "shape": shape}
    return States(layers, facts, torch.arange(n))


def test_what_is_there_is_found_and_what_is_not_is_not():
    train, test = known(300), known(200, 1)
    told = measure(train, test, "told", PENALTIES, 0, CPU)
    assert told["velocity"]["score"] > 0.999 and told["shape"]["score"] > 99
    assert told["position"]["score"] < 0.1
    assert "colour" not in told  # it never varies
    silent = measure(train, test, "silent", PENALTIES, 0, CPU)
    assert silent["velocity"]["score"] < 0.1 and silent["shape"]["interval"][0] < 25 < silent["shape"]["interval"][1]


def test_the_penalty_is_chosen_without_the_test_set_and_matters():
    train, test = known(24, noise=2.0), known(200, 1, noise=2.0)  # as many rows as features: none would overfit
    found = measure(train, test, "told", PENALTIES, 0, CPU)["velocity"]
    other = test._replace(truth={name: value.flip(0) for name, value in test.truth.items()})
    assert measure(train, other, "told", PENALTIES, 0, CPU)["velocity"]["penalty"] == found["penalty"]
    assert found["score"] > measure(train, test, "told", PENALTIES[:1], 0, CPU)["velocity"]["score"]


def test_clips_of_one_video_are_never_on_both_sides():
    """Each video twice, with noise for features: were its copy among the rest, the held-out error would be nought."""
    one = known(40)
    rows = torch.arange(40).repeat(2)
    wide = {"silent": torch.randn(40, 200, generator=torch.Generator().manual_seed(0))[rows]}
    train = States(wide, {name: value[rows] for name, value in one.truth.items()}, rows)
    leaky = train._replace(video=torch.arange(80))
    honest, copied = (measure(one, one, "silent", PENALTIES, 0, CPU)["velocity"]["penalty"] for one in (train, leaky))
    assert copied < honest == PENALTIES[-1]


def test_states_are_those_of_the_frame_whose_truth_is_told(bounce):
    source = f"{bounce}/val-*.tar"
    found = read(Frames(4), source, 1, Reader(batch_size=5, workers=0, clips=2, stride=2), QUIET)
    clips = torch.cat([batch.views[0] for batch in batches(source, CentreCrop(16), 12, 0, span=Span(10))])
    facts = truth(source)
    for row, frame in ((0, 7), (12 + 5, 9)):  # clips of 4 frames, every second: 1 to 7 and 3 to 9 of 10
        video = row % 12
        assert torch.equal(clips[video, :, frame].flatten().float(), found.layers["last layer"][row])
        for name in ("position", "velocity"):
            assert torch.equal(found.truth[name][row], facts[name][video, frame, 1])
        assert found.truth["shape"][row] == facts["shape"][video, 1]
    assert found.video.tolist() == [*range(12), *range(12)]


def test_levels_are_compared_at_one_frame():
    frozen = FrozenEncoder(hierarchy(first(), upper(stride=3, of_states=True), frames=10))
    layers = layers_of(frozen)
    assert [layer.name for layer in layers] == ["encoder", "level 1", "level 2"]
    assert layers[2].frames == [0, 3, 6, 9] and moment_of(layers) == 9
    tubes = hierarchy(first(), upper(stride=2, of_states=True), frames=12, tubelet=2)
    assert [layer.frames for layer in layers_of(FrozenEncoder(tubes))] == [[1, 3, 5, 7, 9, 11]] * 2 + [[1, 5, 9]]
    assert moment_of(layers_of(FrozenEncoder(tubes))) == 9
    assert layers_of(FrozenEncoder(ViT(16, 8, 12, 1, 2, frames=8, tubelet=2)))[0].frames == [1, 3, 5, 7]


def test_states_of_levels_are_the_hierarchys(bounce):
    torch.manual_seed(0)
    frozen = FrozenEncoder(hierarchy(first(), upper(stride=2, of_states=True), frames=10, reads=2))
    found = read(frozen, f"{bounce}/val-*.tar", 0, READER, QUIET)
    assert set(found.layers) == {"encoder", "encoder, averaged", "level 1", "level 2"}
    clips = torch.cat(
        [b.views[0] for b in batches(f"{bounce}/val-*.tar", CentreCrop(16), 12, 0, span=READER.span(frozen))]
    )
    with torch.no_grad():
        sequence = frozen.encoder.at(2).sequence(clips)  # (12, 5, 1, D): frames 0, 2, 4, 6, 8
        tokens = frozen.encoder.encoder(clips[:, :, 8:9])
    assert torch.allclose(found.layers["level 2"], sequence[:, -1, 0], atol=1e-5)
    assert torch.allclose(found.layers["encoder"], tokens.flatten(1), atol=1e-5)


def test_command(bounce, tmp_path, capsys):
    out, shards = tmp_path / "d.json", [f"{bounce}/train-*.tar", f"{bounce}/val-*.tar"]
    cli.main(["eval", "decode", "pixels", *shards, "--frames=2", "--workers=0", f"--out={out}"])
    found = json.loads(out.read_text())
    assert found["frame"] == 1 and found["train_samples"] == 24 and found["test_samples"] == 12
    assert set(found["layers"]["last layer"]) == {"position", "velocity", "colour", "shape"}
    assert "decoded from pixels" in capsys.readouterr().out


def test_what_has_no_truth_is_one_line(bounce, tmp_path):
    pictures = write_shard(tmp_path / "a.tar")
    with pytest.raises(UserError, match="holds no truth"):
        read(Pixels(16), pictures, 0, READER, QUIET)
    with pytest.raises(UserError, match="no object 7"):
        read(Pixels(16), f"{bounce}/val-*.tar", 7, READER, QUIET)
