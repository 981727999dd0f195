"""Files that try to run code, to leave their folder, to speak to the terminal, or to lie: one clear line each."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from reliability.crafted import exported, header, indexed
from safetensors.torch import load_file, save_file
from small_shards import jpeg, numbered, write_tar

from jepa_pretrain import FrozenEncoder, cli
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.fetch import local
from jepa_pretrain.data.images import BrokenPicture, decode
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.pack import pack
from jepa_pretrain.data.show import show
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.verify import verify
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.evals.features import KIND
from jepa_pretrain.evals.kept import read as cached
from jepa_pretrain.interop import checkpoint
from jepa_pretrain.interop.architectures import describe
from jepa_pretrain.interop.formats import export
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.report import contents
from jepa_pretrain.report.addresses import harmless
from jepa_pretrain.report.page import report

ROOT = Path(__file__).parents[2]
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def ended(*words: str) -> str:
    """The one line with which the command line ends."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert isinstance(end.value.code, str) and end.value.code.isprintable()
    return end.value.code


# ---- code


def test_a_checkpoint_that_would_run_code_is_refused_in_one_line(tmp_path: Path):
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "callbacks": Evil(f"touch {tmp_path}/ran")}, path)
    with pytest.raises(UserError, match=r"evil\.ckpt is refused: it asks for posix\.system and could run code$"):
        checkpoint.read(path)
    recipe = str(ROOT / "recipes/debug/vicreg.yaml")
    line = ended("fit", "--config", recipe, "--run", str(tmp_path / "run"), "--ckpt_path", str(path))
    assert "could run code" in line
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    path.rename(tmp_path / "run" / "checkpoints" / "last.ckpt")
    line = ended("fit", "--config", recipe, "--run", str(tmp_path / "run"), "--ckpt_path", "last")
    assert "could run code" in line
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_in_pieces_or_compressed_is_not_read(tmp_path: Path):
    with pytest.raises(UserError, match="is a folder"):
        checkpoint.read(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as old, zipfile.ZipFile(tmp_path / "b.ckpt", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="does not compress"):
        checkpoint.read(tmp_path / "b.ckpt")


@pytest.mark.parametrize("provenance", [3, {"versions": [1]}, {"metrics": "x"}, {"a": torch.zeros(1)}], ids=str)
def test_what_a_checkpoint_says_of_itself_is_plain(provenance: object, tmp_path: Path):
    encoder = ViT(image_size=8, patch=4, width=8, depth=1, heads=2)
    entry = {"prefix": "", "config": describe(encoder), "provenance": {"step": 1}}
    torch.save({"state_dict": encoder.state_dict(), "export": entry}, tmp_path / "a.ckpt")
    export(str(tmp_path / "a.ckpt"), str(tmp_path / "out"))
    torch.save({"state_dict": encoder.state_dict(), "export": entry | {"provenance": provenance}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="of the wrong kind"):
        export(str(tmp_path / "a.ckpt"), str(tmp_path / "out"))


def test_a_checkpoint_does_not_change_the_recipe(tmp_path: Path):
    """Lightning would build what `hyper_parameters` name, in place of what the recipe says."""
    path = tmp_path / "last.ckpt"
    torch.save({"hyper_parameters": {"_class_path": "no.such.Method"}, "state_dict": {}}, path)
    recipe = str(ROOT / "recipes/debug/vicreg.yaml")
    words = ["--config", recipe, "--run", str(tmp_path / "run"), "--ckpt_path", str(path), "--trainer.max_steps", "0"]
    assert "max_steps is 0" in ended("fit", *words)


def test_what_a_feature_cache_holds_is_checked(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    torch.save(Evil(f"touch {tmp_path}/ran"), path)
    assert cached(path, KIND) is None
    layers, label = torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64)
    for tensors, width in (({"layers": layers, "label": label}, 6), ({"layers": layers, "label": label[1:]}, 6)):
        save_file(tensors, path, metadata={"width": str(width)})
        assert (cached(path, KIND) is None) == (len(tensors["label"]) != 4)
    for metadata in ({"width": "7"}, {"width": "x"}, {}):
        save_file({"layers": layers, "label": label}, path, metadata=metadata)
        assert cached(path, KIND) is None
    assert not (tmp_path / "ran").exists()


def test_a_class_or_a_download_cannot_be_named(tmp_path: Path):
    for name in ("os.system", "jepa_pretrain.models.vit.ViT", "builtins.eval", ["ViT"], None):
        folder = exported(tmp_path / "export", architecture={"class": name, "args": {}})
        with pytest.raises(UserError, match="unknown encoder class"):
            FrozenEncoder.load(folder)
    for name in ("hf-hub:someone/model", "local-dir:/tmp", "hf_hub:a/b"):
        folder = exported(tmp_path / "export", architecture={"class": "TimmEncoder", "args": {"name": name}})
        with pytest.raises(UserError, match="timm has no model"):
            FrozenEncoder.load(folder)


COMMANDS = ["pipe:touch {}", "pi{{pe:touch {},}}", "{{pipe:touch {},x}}", "simplecache::file://{}", "reference://{}"]
COMMANDS += ["https://host/a{{:,}}{{:,}}file://{}", "ssh://host/{}", "a{{000..999999999999}}{}"]


@pytest.mark.parametrize("address", COMMANDS)
def test_a_report_runs_no_command_of_a_recipe(address: str, tmp_path: Path):
    address = address.format(tmp_path / "ran")
    assert not harmless(address)
    config = {"data": {"init_args": {"train": ["train.tar", address]}}}
    with pytest.raises(UserError, match="give it with --data"):
        contents.source_of(config)
    run = tmp_path / "run"
    run.mkdir()
    exported(run / "export")
    (run / "config.yaml").write_text(json.dumps(config))
    report(str(run))
    assert not (tmp_path / "ran").exists()
    assert "may run a command" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    "address", ["a-{000000..000123}.tar", "https://h:80/a-{0..9}.tar", "s3://b/*.tar", "/x/pipe/y"]
)
def test_a_report_reads_plain_addresses(address: str):
    assert harmless(address)


def test_a_report_shows_what_it_was_given_as_text(tmp_path: Path):
    outcome = {"protocol": "linear", "encoder": "<b>x", "top1": 5, "interval": [1, 2], "test_samples": "<script>"}
    folder = tmp_path / "run"
    (folder / "eval").mkdir(parents=True)
    (folder / "eval" / "a.json").write_text(json.dumps(outcome))
    (folder / "eval" / "b.json").write_text(json.dumps(outcome | {"test_samples": 7, "interval": [1, 2, 3]}))
    (folder / "eval" / "c.json").write_text(json.dumps(outcome | {"test_samples": 7}))
    (folder / "metrics.csv").write_text("step,train/loss\n1,2\n")
    exported(folder / "export", provenance={"data": "<i>", "versions": [1], "method": "<script>"})
    report(str(folder))
    page = (folder / "report.html").read_text()
    assert "<script>" not in page and "<b>x" not in page and page.count("is no result of an evaluation") == 2


# ---- escapes


def hostile(path: Path, secret: Path) -> Path:
    """A tar with every kind of member that could lead out of a folder."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate(("../up.jpg", "/tmp/root.jpg", "a/../../b.jpg", f"{ESCAPE}.jpg")):
            member = tarfile.TarInfo(name)
            data = jpeg(number)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"link{number}.jpg")
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
    return path


def test_nothing_in_a_tar_leads_out_of_it(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(9))
    path = hostile(tmp_path / "in" / "a.tar", tmp_path / "secret.jpg")
    before = listing(tmp_path)
    assert len(Shard(path)) == 4 and len(list(batches(str(path), CentreCrop(8), 4, 0))) == 1
    pack(str(path), str(tmp_path / "out"))
    verify(str(path))
    new = {name for name in listing(tmp_path) - before if not name.startswith("out")}
    assert not new and len(list(tmp_path.parent.glob("up.jpg"))) == 0
    packed = Shard(tmp_path / "out" / "train-000000.tar")
    assert len(packed) == 4 and not any("/" in key or ".." in key for key in packed.keys)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../a.tar", "/etc/a.tar", "https://h/a.tar", "pipe:touch x/a", "..", "", "a\x1b.tar"])
def test_an_index_describes_its_own_folder_only(name: str, tmp_path: Path):
    with pytest.raises(UserError, match="is no plain file name") as caught:
        open_index(str(indexed(tmp_path / "a", name=name)))
    assert str(caught.value).isprintable()


def test_an_index_names_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files whose names read like addresses are files."""
    monkeypatch.chdir(tmp_path)
    sums = []
    for name in ("pipe:touch ran;.tar", "memory::x.tar", "a*b.tar"):
        path = write_tar(tmp_path / name, numbered(0, 2))
        sums.append({"name": name, "samples": 2, "bytes": 0, "sha256": sha256(path.read_bytes()).hexdigest()})
    (tmp_path / "index.json").write_text(json.dumps({"format": 1, "classes": [], "shards": sums}))
    assert open_index(".").samples == 6
    verify(".")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_export_shows_nothing_from_elsewhere(name: str, tmp_path: Path):
    folder = exported(tmp_path / "export")
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of its folder"):
        FrozenEncoder.load(folder)
    (tmp_path / "outside").rename(folder / "real")
    (folder / name).unlink()
    (folder / name).symlink_to("real")
    (tmp_path / "link").symlink_to(folder)
    FrozenEncoder.load(tmp_path / "link")  # a link to the whole folder is the user's own


def test_links_that_the_user_made_are_followed(tmp_path: Path):
    """Links in the user's file system are the user's; those inside an archive are a stranger's."""
    (tmp_path / "elsewhere").mkdir()
    path = write_tar(tmp_path / "elsewhere" / "a.tar", numbered(0, 3))
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").symlink_to(path)
    assert open_index(str(tmp_path / "shards")).samples == 3


def test_a_folder_of_pictures_that_leads_round_in_circles(tmp_path: Path):
    folder = tmp_path / "in" / "class"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg(1))
    for name in ("one", "two"):
        (folder / name).symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    (folder / f"{ESCAPE}.jpg").write_bytes(jpeg(1)[:100])
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    assert open_index(str(tmp_path / "out")).samples == 1


def test_a_named_pipe_is_no_shard(tmp_path: Path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(UserError, match="no regular file"):
        open_index(str(tmp_path))


# ---- the terminal


def test_what_is_printed_is_printable(tmp_path: Path, capsys: pytest.CaptureFixture, caplog):
    keys = [ESCAPE, "[red]", "[/nope]", "\udcff", "\u202egpj"]
    samples = [(key, {"jpg": b"no picture", "cls": b"0"}) for key in keys] + numbered(1, 3)
    path = write_tar(tmp_path / "a.tar", samples, tarfile.PAX_FORMAT)
    assert all(key.isprintable() for key in Shard(path).keys)
    with pytest.raises(UserError):
        verify(str(path))
    list(batches(str(path), CentreCrop(8), 8, 0))
    out = capsys.readouterr()
    for text in (out.out, out.err, caplog.text):
        assert all(line.isprintable() for line in text.splitlines())
    assert "[/nope]" in out.out and "broken sample skipped" in caplog.text
    classes = indexed(tmp_path / "classes", classes=[ESCAPE] * 10)
    assert open_index(str(classes)).classes[0].isprintable()
    show(str(classes), str(tmp_path / "sheet.png"))


# ---- lies


NUMBERS = [-1, 2.5, "3", True, None, [3], 10**30, float("nan"), float("inf")]


@pytest.mark.parametrize("value", NUMBERS, ids=str)
@pytest.mark.parametrize("key", ["samples", "bytes"])
def test_numbers_in_an_index_are_whole_and_possible(key: str, value: object, tmp_path: Path):
    with pytest.raises(UserError, match=r"is no (number of samples|size in bytes)"):
        open_index(str(indexed(tmp_path / "a", **{key: value})))


@pytest.mark.parametrize("known", [True, False])
def test_ten_thousand_samples_in_a_tar_of_three(known: bool, tmp_path: Path):
    folder = indexed(tmp_path / "a", samples=10_000, **({} if known else {"bytes": 0}))
    with pytest.raises(UserError, match=r"the index says 10,000 samples, its .* bytes cannot hold so many"):
        open_index(str(folder))


@pytest.mark.parametrize("claimed", [2, 4])
def test_a_small_lie_is_found_when_the_shard_is_opened(claimed: int, tmp_path: Path):
    folder = indexed(tmp_path / "a", samples=claimed)
    with pytest.raises(UserError, match=f"the index says {claimed} samples, the tar holds 3"):
        list(batches(str(folder), CentreCrop(8), 2, 0))
    with pytest.raises(UserError, match="1 of 1 shards are damaged"):
        verify(str(folder))


def test_wrong_sizes_sums_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(UserError, match="bytes, the index says 12345"):
        open_index(str(indexed(tmp_path / "a", bytes=12345)))
    for wrong in ("xyz", 7, None):
        with pytest.raises(UserError, match="is no sha256"):
            open_index(str(indexed(tmp_path / "a", sha256=wrong)))
    with pytest.raises(UserError, match="1 of 1 shards are damaged"):
        verify(str(indexed(tmp_path / "a", sha256="0" * 64)))
    assert "checksum differs" in capsys.readouterr().out
    for wrong in ([1], "abc", {"a": 1}, None):
        with pytest.raises(UserError, match="must be a list of names"):
            open_index(str(indexed(tmp_path / "a", classes=wrong)))
    for text in ("[]", "3", "null", '{"shards": {}}', '{"format": 1, "shards": [3]}', "\ud800", '{"shards": NaN}'):
        (tmp_path / "a" / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(UserError):
            open_index(str(tmp_path / "a"))


def test_a_shard_that_is_listed_twice(tmp_path: Path):
    folder = indexed(tmp_path / "a")
    content = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(content | {"shards": content["shards"] * 2}))
    with pytest.raises(UserError, match=r"lists train-000000\.tar twice"):
        open_index(str(folder))


LABELS = [b"10", b"-2", b"1_0", b"1.5", b"9" * 20, b"9" * 5000, b"", b"\xff", "²".encode(), b"1\x1b[2J", b"0x1"]


@pytest.mark.parametrize("text", LABELS, ids=lambda text: repr(text[:8]))
@pytest.mark.parametrize("listed", [True, False])
def test_labels_are_class_numbers(text: bytes, listed: bool, tmp_path: Path):
    if text == b"10" and not listed:
        text = b"1000000"
    folder = indexed(tmp_path / "a")
    samples = [("a", {"jpg": jpeg(1), "cls": text})]
    path = write_tar(folder / "train-000000.tar", samples)
    (folder / "index.json").unlink()
    if listed:
        (folder / "classes.txt").write_text("\n".join("abcdefghij"))
    for use in (lambda: list(batches(str(folder), CentreCrop(8), 1, 0)), lambda: show(str(path), f"{folder}/s.png")):
        with pytest.raises(UserError, match="sample a: ") as caught:
            use()
        assert str(caught.value).isprintable()
    with pytest.raises(UserError, match="1 of 1 shards"):
        verify(str(folder))


ARGUMENTS = [{"patch": 0}, {"depth": -1}, {"depth": True}, {"width": 24.0}, {"heads": "2"}, {"mlp_ratio": float("nan")}]
ARGUMENTS += [{"mean": [0.5]}, {"mean": "abc"}, {"std": [0, 1, 1]}, {"std": [1, 1, float("nan")]}, {"std": [-1, 1, 1]}]
ARGUMENTS += [{"mean": [[1], [1], [1]]}, {"mean": [10**400, 1, 1]}, {"frames": None}, {"image_size": 10**30}]


@pytest.mark.parametrize("args", ARGUMENTS, ids=lambda args: str(args)[:30])
def test_arguments_of_a_class_are_what_it_can_take(args: dict, tmp_path: Path):
    with pytest.raises(UserError, match="refuses these arguments") as caught:
        FrozenEncoder.load(exported(tmp_path / "export", args=args))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@pytest.mark.parametrize("key", ["normalisation", "provenance", "architecture", "grid", "width", "image_size"])
@pytest.mark.parametrize("value", [None, 3.5, [], "x", {"a": [ESCAPE]}, [1] * 1000], ids=lambda value: str(value)[:9])
def test_entries_of_a_config_of_the_wrong_kind(key: str, value: object, tmp_path: Path):
    folder = exported(tmp_path / "export", **{key: value})
    if key == "provenance" and isinstance(value, dict):
        FrozenEncoder.load(folder)
        return
    with pytest.raises(UserError) as caught:
        FrozenEncoder.load(folder)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


WEIGHTS = {
    "extra": ({"norm.odd": torch.zeros(1)}, "not of this architecture"),
    "shape": ({"norm.bias": torch.zeros(25)}, "should have shape"),
    "whole numbers": ({"norm.bias": torch.zeros(24, dtype=torch.int8)}, "should hold torch.float32"),
    "complex": ({"norm.bias": torch.zeros(24, dtype=torch.complex64)}, "should hold torch.float32"),
    "not a number": ({"norm.bias": torch.full((24,), torch.nan)}, "not finite"),
    "infinite": ({"pos_embed": torch.full((1, 16, 24), torch.inf)}, "not finite"),
}


@pytest.mark.parametrize(("weights", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_fit_their_architecture(weights: dict, message: str, tmp_path: Path):
    folder = exported(tmp_path / "export", weights)
    with pytest.raises(UserError, match=message):
        FrozenEncoder.load(folder)


def test_weights_that_are_missing_and_weights_in_half_precision(tmp_path: Path):
    folder = exported(tmp_path / "export")
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in weights.items()}, folder / "model.safetensors")
    FrozenEncoder.load(folder)
    del weights["norm.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"weights missing: norm\.bias"):
        FrozenEncoder.load(folder)


def test_a_broken_picture_is_counted_and_no_crash(tmp_path: Path):
    """Its bytes end inside the frame header."""
    whole = jpeg(1)
    for end in range(2, whole.index(b"\xff\xc0") + 12):
        with pytest.raises(BrokenPicture):
            decode(bytearray(whole[:end]))


def test_a_shard_with_something_behind_its_gzip_stream(tmp_path: Path):
    inner = write_tar(tmp_path / "a.tar", numbered(0, 2)).read_bytes()
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(inner) + b"garbage")
    with pytest.raises(UserError, match="cannot read shard"):
        local(str(tmp_path / "b.tar.gz"), str(tmp_path / "cache"))


def test_a_pax_header_that_is_no_record(tmp_path: Path):
    for text in (b"5 a\n", b"99 path=x\n", b"11 size=-1\n", b"0 a=b\n", b"x", b"30 size=99999999999999999999999\n"):
        size = b"%011o\0" % len(text)
        (tmp_path / "a.tar").write_bytes(header("x", size, b"x") + text.ljust(512, b"\0") + header("a.jpg"))
        with pytest.raises(UserError, match=r"a\.tar"):
            Shard(tmp_path / "a.tar")
