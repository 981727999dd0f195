import json

import pytest
import torch
import torch.nn.functional as F
from known_features import write_shard
from rich.console import Console
from small_shards import write_tar
from small_videos import frames, video

from jepa_pretrain import FrozenEncoder, cli
from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals import tokens
from jepa_pretrain.evals.attention import AttentiveProbe
from jepa_pretrain.evals.attentive import Sweep, attentive, probe
from jepa_pretrain.evals.reader import Reader
from jepa_pretrain.evals.tokens import Tokens
from jepa_pretrain.interop.export import write
from jepa_pretrain.models.vit import ViT

CPU = torch.device("cpu")
SHORT = Sweep(epochs=10, batch_size=16, lr=(1e-3, 1e-2))


def marked(n, seed=0, count=5, width=16):
    """One token of each carries a mark and the class; all others carry some class at random, and no mark."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 4
    told = torch.randint(0, 4, (n, count), generator=rng)
    place = torch.randint(0, count, (n,), generator=rng)
    told[torch.arange(n), place] = label
    x = F.one_hot(told, width).float()
    x[torch.arange(n), place, 10] = 2.0
    return Tokens((x + 0.1 * torch.randn(x.shape, generator=rng)).half(), label)


def test_forward_is_the_papers():
    torch.manual_seed(0)
    ours, x = AttentiveProbe(64, 5), torch.randn(3, 7, 64)
    theirs = torch.nn.MultiheadAttention(64, ours.heads, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.ask.weight, ours.tell.weight])
    theirs.in_proj_bias.data = torch.cat([ours.ask.bias, ours.tell.bias])
    theirs.out_proj.load_state_dict(ours.merge.state_dict())
    keys = ours.norm_tokens(x)
    found = ours.query + theirs(ours.query.expand(3, -1, -1), keys, keys)[0]
    found = found + ours.mlp(ours.norm_mlp(found))
    assert ours.heads == 2 and torch.allclose(ours(x), ours.classify(ours.norm(found))[:, 0], atol=1e-6)


def test_it_attends_to_what_an_average_hides():
    train, test = marked(300), marked(200, 1)
    share = probe(train, test, SHORT, CPU)["hits"] / 200
    mean = torch.linalg.lstsq(train.tokens.float().mean(1), F.one_hot(train.label).float()).solution
    averaged = ((test.tokens.float().mean(1) @ mean).argmax(1) == test.label).float().mean()
    assert share > 0.95 and averaged < 0.75


def test_selection_never_sees_the_test_set():
    train, test = marked(120), marked(80, 1)
    ours, theirs = probe(train, test, SHORT, CPU), probe(train, test._replace(label=test.label.roll(1)), SHORT, CPU)
    assert ours["chosen"] == theirs["chosen"] and ours["val_top1"] == theirs["val_top1"]
    assert ours["hits"] != theirs["hits"]
    shuffled = train._replace(label=train.label[torch.randperm(120, generator=torch.Generator().manual_seed(0))])
    assert max(probe(shuffled, test, SHORT, CPU)["val_top1"].values()) < 70


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "export"
    write(ViT(16, 8, 24, 1, 2, frames=4, tubelet=2), folder, {})
    return str(folder)


def test_command_on_clips_and_from_the_cache(exported, tmp_path, capsys):
    videos = [video(frames(20)[:: 1 if i % 2 else -1]) for i in range(12)]
    samples = [(f"v{i}", {"mp4": one, "cls": str(i % 2).encode()}) for i, one in enumerate(videos)]
    shard, out = str(write_tar(tmp_path / "a.tar", samples)), tmp_path / "r.json"
    options = ["--clips=2", "--epochs=2", "--step=4", "--workers=0", f"--cache={tmp_path / 'c'}", f"--out={out}"]
    cli.main(["eval", "attentive", exported, shard, shard, *options])
    found = json.loads(out.read_text())
    assert found["protocol"] == "attentive" and found["test_samples"] == 12 and len(found["interval"]) == 2
    cli.main(["eval", "attentive", exported, shard, shard, *options])
    assert "tokens of 12 samples from the cache" in capsys.readouterr().out
    assert json.loads(out.read_text())["top1"] == found["top1"]


def test_tokens_of_clips_stand_side_by_side(exported, tmp_path):
    shard = write_shard(tmp_path / "a.tar", 6)
    reader = Reader(workers=0, cache=str(tmp_path / "c"), clips=2)
    frozen = FrozenEncoder.load(exported)
    found, _ = tokens.load(frozen, shard, shard, 1.0, reader, Console(quiet=True))
    clip = next(iter(reader.stream(frozen, shard))).views[0]
    assert found.tokens.shape == (6, 2 * 8, 24)
    assert torch.allclose(found.tokens[:, 8:].float(), frozen(clip), atol=2e-3)


def test_pictures(tmp_path):
    shard, out = write_shard(tmp_path / "a.tar", 24), tmp_path / "r.json"
    folder = tmp_path / "export"
    write(ViT(16, 8, 24, 1, 2), folder, {})
    reader = Reader(workers=0, cache=str(tmp_path / "c"))
    attentive(str(folder), shard, shard, str(out), epochs=10, step=8, lr=(1e-2,), reader=reader)
    assert json.loads(out.read_text())["top1"] > 90  # dark and bright


def test_what_cannot_be_is_one_line(exported, tmp_path):
    shard = write_shard(tmp_path / "a.tar")
    reader = Reader(workers=0, cache=str(tmp_path / "c"))
    with pytest.raises(UserError, match="GiB, more than --memory 1e-06 allows"):
        attentive(exported, shard, shard, memory=1e-6, reader=reader)
    with pytest.raises(UserError, match="one token"):
        attentive("pixels", shard, shard, reader=reader)
    with pytest.raises(UserError, match="lr needs"):
        attentive(exported, shard, shard, lr=(), reader=reader)
