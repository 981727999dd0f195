"""Patterns name the right shards; compressed and remote ones are copied once, whole."""

import gzip
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import pytest
from small_shards import numbered, write_tar

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data import fetch
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.fetch import expand, local, name_of
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.views import CentreCrop

Make = Callable[..., str]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_patterns(tmp_path: Path, shards: Make):
    names = [str(tmp_path / f"train-{number:06d}.tar") for number in range(3)]
    shards(1, 1, 1)
    (tmp_path / "index.txt").write_text("no shard")
    assert expand(f"{tmp_path}/train-{{000000..000002}}.tar") == names
    assert expand(f"{tmp_path}/*.tar") == expand(str(tmp_path)) == expand(names[:2] + names[2:]) == names
    assert expand("s3://bucket/a-{0..1}.tar") == ["s3://bucket/a-0.tar", "s3://bucket/a-1.tar"]
    assert name_of("https://host/dir/a-000.tar.gz?x=1") == "a-000"


def test_mistaken_patterns_are_explained(tmp_path: Path, shards: Make):
    pattern = shards(1, 1)
    for wrong in (str(tmp_path / "val-*.tar"), f"{tmp_path}/train-{{000000..000002}}.tar", str(tmp_path / "none")):
        with pytest.raises(UserError, match="no shards match"):
            expand(wrong)
    with pytest.raises(UserError, match="named twice"):
        expand([pattern, str(tmp_path)])
    with pytest.raises(UserError, match="no shards given"):
        expand([])


def test_compressed_shards_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tar(tmp_path / "a-0.tar.gz", numbered(0, 5))
    cache = str(tmp_path / "cache")
    path = local(str(tmp_path / "a-0.tar.gz"), cache)
    assert len(Shard(path)) == 5
    assert not [name for name in os.listdir(cache) if "part" in name]
    monkeypatch.setattr(fetch, "_copy", None)
    assert local(str(tmp_path / "a-0.tar.gz"), cache) == path, "not unpacked again"
    loaded = [label for batch in batches(str(tmp_path / "*.gz"), CentreCrop(8), 2, 0, cache) for label in batch.label]
    assert loaded == list(range(5))


def test_a_changed_file_is_unpacked_again(tmp_path: Path):
    for count in (3, 4):
        write_tar(tmp_path / "a.tar.gz", numbered(0, count))
        assert len(Shard(local(str(tmp_path / "a.tar.gz"), str(tmp_path / "cache")))) == count


def test_many_processes_unpack_together(tmp_path: Path):
    write_tar(tmp_path / "a.tar.gz", numbered(0, 50))
    with get_context("fork").Pool(4) as pool:
        paths = pool.starmap(local, [(str(tmp_path / "a.tar.gz"), str(tmp_path / "cache"))] * 8)
    assert len(set(paths)) == 1
    assert len(Shard(paths[0])) == 50


def test_a_cut_archive_is_named_and_leaves_nothing(tmp_path: Path):
    whole = write_tar(tmp_path / "a.tar.gz", numbered(0, 20)).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read shard .*a\.tar\.gz"):
        local(str(tmp_path / "a.tar.gz"), str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*.tar"))
    assert not list((tmp_path / "cache").glob("*part*"))


@pytest.mark.parametrize("compressed", [False, True])
def test_urls(tmp_path: Path, shards: Make, server: str, compressed: bool):
    shards(3, 4)
    if compressed:
        for path in list(tmp_path.glob("*.tar")):
            with gzip.open(f"{path}.gz", "wb") as out:
                out.write(path.read_bytes())
            path.unlink()
    suffix = ".tar.gz" if compressed else ".tar"
    (tmp_path / "classes.txt").write_text("\n".join("abcdefg"))
    for base in (server, f"file://{tmp_path}"):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        loader = batches(f"{base}/train-{{000000..000001}}{suffix}", CentreCrop(8), 2, 0, str(tmp_path / "cache"))
        assert [label for batch in loader for label in batch.label.tolist()] == list(range(7))
        assert loader.dataset.index.classes == list("abcdefg")
        assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


def test_pipes(tmp_path: Path, shards: Make):
    shards(3)
    index = open_index(f"pipe:cat {tmp_path}/train-000000.tar", str(tmp_path / "cache"))
    assert index.samples == 3


def test_missing_urls_are_named(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    for address in (f"{server}/none.tar", f"file://{tmp_path}/none.tar", "pipe:cat /nowhere/none.tar", "foo://x/y.tar"):
        with pytest.raises(UserError, match="shard"):
            local(address, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*.tar"))
