"""The index is believed where it is right, and contradicted where it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_shards import numbered, write_tar

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data import index as module
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.index import open_index

Make = Callable[..., str]


def write_index(folder: Path, **changes: object) -> None:
    shards = [
        {"name": path.name, "samples": 3, "bytes": path.stat().st_size, "sha256": "0" * 64}
        for path in sorted(folder.glob("*.tar"))
    ]
    content = {"format": 1, "samples": 3 * len(shards), "classes": ["a", "b"], "bad": [], "shards": shards} | changes
    (folder / "index.json").write_text(json.dumps(content))


def test_counts_come_from_the_headers_without_an_index(shards: Make):
    index = open_index(shards(3, 0, 5))
    assert (index.sizes, index.samples, index.classes) == ([3, 0, 5], 8, [])


def test_counts_come_from_the_index_without_opening_a_shard(tmp_path: Path, shards: Make, monkeypatch):
    pattern = shards(3, 3)
    write_index(tmp_path)
    monkeypatch.setattr(module, "Shard", None)
    index = open_index(pattern)
    assert (index.sizes, index.classes) == ([3, 3], ["a", "b"])
    assert [entry.name for entry in open_index(str(tmp_path / "train-000001.tar")).shards] == ["train-000001"]


def test_paths_may_be_relative(tmp_path: Path, shards: Make, monkeypatch):
    shards(3, 3)
    write_index(tmp_path)
    monkeypatch.chdir(tmp_path)
    for pattern in ("train-*.tar", "train-{000000..000001}.tar", ".", "./train-*.tar"):
        assert open_index(pattern).classes == ["a", "b"]
        assert all(entry.sha256 for entry in open_index(pattern).shards), "found in the index"


def test_the_digest_depends_on_the_contents_not_on_the_place(tmp_path: Path, shards: Make):
    pattern = shards(3, 3)
    write_index(tmp_path)
    digest = open_index(pattern).digest
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    assert open_index(str(moved / "train-*.tar")).digest == digest
    write_index(moved, classes=["a", "c"])
    assert open_index(str(moved / "train-*.tar")).digest != digest


def test_a_cut_shard_is_found_before_training(tmp_path: Path, shards: Make):
    pattern = shards(3, 3)
    write_index(tmp_path)
    path = tmp_path / "train-000001.tar"
    path.write_bytes(path.read_bytes()[: Shard(path).spans["jpg"][1, 0] + 5])
    with pytest.raises(UserError, match=r"train-000001: the index says 3 samples, the tar holds 1"):
        open_index(pattern)


def test_an_empty_shard_is_fine_and_nothing_at_all_is_not(tmp_path: Path):
    write_tar(tmp_path / "a-0.tar", [])
    with pytest.raises(UserError, match="hold no samples"):
        open_index(str(tmp_path))
    write_tar(tmp_path / "a-1.tar", numbered(0, 2))
    assert open_index(str(tmp_path)).sizes == [0, 2]
    (tmp_path / "a-2.tar").write_bytes(b"")
    assert open_index(str(tmp_path)).sizes == [0, 2, 0]


def test_what_is_no_index_is_named(tmp_path: Path, shards: Make):
    pattern = shards(3)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="is not a shard index"):
        open_index(pattern)
    write_index(tmp_path, format=2)
    with pytest.raises(UserError, match="has format 2"):
        open_index(pattern)


def test_folders_must_agree_on_the_classes(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "a.tar", numbered(0, 1))
        (tmp_path / name / "classes.txt").write_text(name)
    with pytest.raises(UserError, match="different classes"):
        open_index([str(tmp_path / "one"), str(tmp_path / "two")])
