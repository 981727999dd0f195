"""What can be packed: a folder of pictures or videos, a torchvision dataset, or shards, behind one small interface."""

import inspect
import json
import os
import re
import resource
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
import torchvision.datasets
from PIL import Image
from torchvision.datasets import DatasetFolder, VisionDataset

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import MEMBER, TooLarge
from jepa_pretrain.data.clips import EXTENSIONS
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.index import open_index

LONGEST = 25  # bytes of an extension; a name in a tar has a hundred
SPLITS = {"train", "training", "val", "valid", "validation", "test"}


class Source(Protocol):
    """Samples in a fixed order."""

    classes: list[str]  # empty where there are no labels
    sizes: np.ndarray  # (S,) bytes of each sample, about; known before anything is read
    digest: str  # changes when the samples do

    def name(self, number: int) -> str:
        """How messages and the index call a sample."""
        ...

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        """A sample's stem, and its members by extension."""
        ...


def open_source(source: str, split: str, root: str, download: bool) -> Source:
    """Finds out what `source` is.

    Args:
        source: A folder of pictures or videos, `torchvision:NAME`, or shards (a pattern, URL or folder of tars).
        split: "train", "val", ...; chooses the part of a torchvision dataset.
        root: Where torchvision datasets lie.
        download: Let torchvision download what is missing.
    """
    if source.startswith("torchvision:"):
        dataset = _torchvision(source.removeprefix("torchvision:"), split, root, download)
        if isinstance(dataset, DatasetFolder):  # its files are copied unchanged
            return Files([Path(path) for path, _ in dataset.samples], [label for _, label in dataset.samples], dataset)
        return Dataset(dataset)
    folder = Path(source).expanduser()
    if not folder.is_dir() or any(folder.glob("*.tar")) or any(folder.glob("*.tar.gz")):
        return Tars(source)
    return _folder(folder)


class Files:
    """Pictures and videos in files.

    Args:
        paths: The files, in a fixed order.
        labels: Class numbers; -1 for none.
        classes: Class names, or the torchvision dataset that lists them.
        base: Names are given from here.
    """

    def __init__(
        self, paths: list[Path], labels: list[int], classes: list[str] | DatasetFolder, base: Path | None = None
    ):
        self.paths, self.labels = paths, labels
        self.classes = classes.classes if isinstance(classes, DatasetFolder) else classes
        self.base = base or Path(os.path.commonpath(paths)).parent
        self.sizes = np.array([path.stat().st_size for path in paths], dtype=np.int64)
        self.digest = _digest([[self.name(number) for number in range(len(paths))], self.sizes.tolist(), self.classes])

    def name(self, number: int) -> str:
        return self.paths[number].relative_to(self.base).as_posix()

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        path, label = self.paths[number], self.labels[number]
        if self.sizes[number] > MEMBER:
            raise TooLarge(f"the file has {self.sizes[number]:,} bytes, more than {MEMBER:,}")
        extension = path.suffix[1:].lower()
        fields = {extension: path.read_bytes()}
        return path.stem, fields if label < 0 else fields | {"cls": str(label).encode()}


class Dataset:
    """A torchvision dataset whose items are (picture, class); pictures are stored as PNG.

    Args:
        dataset: The dataset; the sizes of its pictures are taken to be those of the first.
    """

    def __init__(self, dataset: VisionDataset):
        self.dataset = dataset
        try:
            self.classes = list(dataset.classes)
        except AttributeError:  # not every torchvision dataset names its classes
            self.classes = []
        picture, _ = self._item(0)
        self.sizes = np.full(len(dataset), picture.width * picture.height * len(picture.getbands()), dtype=np.int64)
        self.digest = _digest([str(dataset), len(dataset), sha256(picture.tobytes()).hexdigest(), self.classes])

    def _item(self, number: int) -> tuple[Image.Image, int]:
        item = self.dataset[number]
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Image.Image)):
            raise UserError(f"{type(self.dataset).__name__} is not a classification dataset of pictures")
        if not isinstance(item[1], int | np.integer):
            raise UserError(f"the labels of {type(self.dataset).__name__} are not class numbers")
        return item[0], int(item[1])

    def name(self, number: int) -> str:
        return f"{type(self.dataset).__name__}[{number}]"

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        picture, label = self._item(number)
        out = BytesIO()
        picture.save(out, "PNG")
        fields = {"png": out.getvalue()}
        return type(self.dataset).__name__, fields if label < 0 else fields | {"cls": str(label).encode()}


class Tars:
    """Samples of existing shards, with all their members.

    Args:
        source: A path, URL, brace or glob pattern, or a folder of tars.
    """

    def __init__(self, source: str):
        index = open_index(source)
        _allow_open_files(2 * len(index.shards))
        self.classes, self.shards = index.classes, [entry.open(index.cache) for entry in index.shards]
        self.ends = np.cumsum(index.sizes)
        totals = [
            sum(np.maximum(span[:, 1], 0) for span in shard.spans.values()) for shard in self.shards if len(shard)
        ]
        self.sizes = np.concatenate(totals)
        self.digest = _digest([[shard.keys for shard in self.shards], self.sizes.tolist(), self.classes])

    def _find(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.ends, number, side="right"))
        return shard, number - int(self.ends[shard]) + len(self.shards[shard])

    def name(self, number: int) -> str:
        shard, sample = self._find(number)
        return f"{self.shards[shard].name}/{self.shards[shard].keys[sample]}"

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        shard, sample = self._find(number)
        fields = self.shards[shard].fields(sample)  # an extension becomes part of a name in the new shard
        odd = next((one for one in fields if len(one.encode()) > LONGEST or not one.isprintable()), None)
        if odd is not None:
            raise BrokenPicture(f"no extension of a member: {odd[:LONGEST]}")
        stem = re.sub(r"^\d{8}-", "", self.shards[shard].keys[sample])  # the number an earlier packing gave
        return stem, {extension: bytes(data) for extension, data in fields.items()}


def _folder(folder: Path) -> Files:
    """A folder of class folders, or a flat one."""
    flat = _pictures(folder, deep=False)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if classes and {name.lower() for name in classes} <= SPLITS:
        raise UserError(
            f"{folder} holds splits ({', '.join(classes)}), not classes: pack one, e.g. {folder / classes[0]}"
        )
    if not classes:
        if not flat:
            raise UserError(f"{folder} holds no pictures or videos ({', '.join(EXTENSIONS)}) and no class folders")
        return Files(flat, [-1] * len(flat), [], folder)
    if flat:
        raise UserError(f"{folder} holds pictures both beside and inside class folders: move {flat[0].name}")
    found = [(path, label) for label, name in enumerate(classes) for path in _pictures(folder / name)]
    if not found:
        raise UserError(f"the class folders of {folder} ({', '.join(classes[:3])} ...) hold no pictures")
    return Files([path for path, _ in found], [label for _, label in found], classes, folder)


def _pictures(folder: Path, deep: bool = True) -> list[Path]:
    """Files, sorted; hidden ones are left out, and so are links to folders, which may lead round in circles."""
    found: list[Path] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            found += _pictures(Path(entry.path)) if deep else []
        elif entry.name.rsplit(".", 1)[-1].lower() in EXTENSIONS and entry.is_file():  # a pipe would wait for ever
            found.append(Path(entry.path))
    return found


def _torchvision(name: str, split: str, root: str, download: bool) -> VisionDataset:
    """Builds a dataset by its name; torchvision calls the choice of a part `train` or `split`."""
    kind = vars(torchvision.datasets).get(name)
    if not (inspect.isclass(kind) and issubclass(kind, VisionDataset)):
        raise UserError(f"torchvision has no dataset called {name}; names are case sensitive, e.g. CIFAR10")
    known = inspect.signature(kind).parameters
    choice = {"train": split == "train", "split": split, "download": download}
    try:
        return kind(os.path.expanduser(root), **{key: value for key, value in choice.items() if key in known})
    except (RuntimeError, ValueError, OSError, TypeError) as error:
        hint = "" if download or "download" not in known else "; download it with `download`"
        raise UserError(f"cannot open {name} ({split}) in {root}: {str(error).splitlines()[0]}{hint}") from None


def _allow_open_files(count: int) -> None:
    """Raises this process's limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 100, hard), hard))


def _digest(content: list[object]) -> str:
    return sha256(json.dumps(content).encode("utf-8", "surrogateescape")).hexdigest()
