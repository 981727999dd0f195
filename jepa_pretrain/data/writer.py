"""Writing shards: byte-identical tars that appear whole or not at all, and the index over them.

A folder of shards holds `split-000000.tar` ..., `index.json`, and a hidden folder `.parts` with one small file per
finished shard. That file is written after its shard, so that packing can be interrupted, continued, and divided over
machines that share only the folder; whoever finds all of them writes the index.
"""

import errno
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TypedDict

from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import MIB, parse_json, read_text

BLOCK = 512
LARGEST = 64 * MIB  # bytes of such a note; a whole shard of bad pictures fits
PARTS, INDEX = ".parts", "index.json"
Fields = dict[str, bytes]  # the members of a sample, by extension
FULL = (errno.ENOSPC, errno.EDQUOT)


class Bad(TypedDict):
    """A source file that was left out."""

    name: str
    reason: str


class Part(TypedDict):
    """What is known of one finished shard."""

    name: str
    samples: int
    bytes: int
    sha256: str
    bad: list[Bad]
    split: str
    plan: str  # names the source and the division into shards
    shards: int  # how many the plan has
    classes: list[str]


class Plan(TypedDict):
    """The division of one split into shards, the same on every machine that packs it."""

    split: str
    plan: str
    shards: int
    classes: list[str]


class TarWriter:
    """Writes one USTAR file with fixed times and owners; visible under its name only when complete.

    Args:
        path: The final name.
    """

    def __init__(self, path: Path):
        self.path, self._part = path, path.with_name(f".{path.name}.part-{os.getpid()}")
        self.samples, self.bytes, self._sum = 0, 0, sha256()

    def __enter__(self) -> "TarWriter":
        with _told_when_full(self.path):
            self._file = open(self._part, "wb")
        return self

    def add(self, key: str, fields: dict[str, bytes]) -> None:
        """Appends one sample.

        Args:
            key: Its name; holds no dot.
            fields: Contents by extension.
        """
        for extension, data in fields.items():
            head = tarfile.TarInfo(f"{key}.{extension}")
            head.size, head.mode = len(data), 0o644
            self._write(head.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK))
        self.samples += 1

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with _told_when_full(self.path), self._file:
                if kind is None:
                    self._write(bytes(2 * BLOCK))
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                os.replace(self._part, self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        with _told_when_full(self.path):
            self._file.write(data)
        self._sum.update(data)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """Checksum of all that was written."""
        return self._sum.hexdigest()


@contextmanager
def _told_when_full(path: Path) -> Iterator[None]:
    """Turns "no space left" into a message that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        message = f"no space left for {path}; finished shards are kept: free some space and run the same again"
        raise UserError(message) from None


def write_json(path: Path, content: object) -> None:
    """Writes a small file in one step.

    Args:
        path: Its final name.
        content: Anything that JSON can hold.
    """
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with _told_when_full(path), open(part, "w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def shard_name(split: str, number: int) -> str:
    """`train-000000.tar`."""
    return f"{split}-{number:06d}.tar"


def finish_shard(out: Path, tar: TarWriter, plan: Plan, bad: list[Bad]) -> None:
    """Notes that a shard is complete."""
    name = tar.path.name
    part = Part(name=name, samples=tar.samples, bytes=tar.bytes, sha256=tar.sha256, bad=bad, **plan)
    write_json(out / PARTS / f"{name}.json", part)


def finished(out: Path, plan: Plan) -> list[str]:
    """The shards of a plan that are complete; refuses a folder that holds another packing of the same split."""
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    parts, done = read_parts(out), []
    if (out / INDEX).exists() and not parts:
        raise UserError(f"{out} holds shards that were not packed here: choose an empty folder")
    for part in parts:
        if part["split"] == plan["split"] and part["plan"] != plan["plan"]:
            raise UserError(
                f"{out} already holds {part['split']} shards of another source or another division: "
                "choose an empty folder, or delete it first"
            )
        if part["classes"] != plan["classes"]:
            raise UserError(f"{out} holds shards with other classes than {plan['split']} has: labels would not agree")
        if part["split"] == plan["split"] and _intact(out, part):
            done.append(part["name"])
    return done


def write_made(
    out: Path, plan: Plan, count: int, per_shard: int, samples: Callable[[int, int], Iterable[tuple[int, Fields]]]
) -> None:
    """Writes the shards of samples that are made on demand; those that are complete stay.

    Args:
        out: The folder.
        plan: Names the division.
        count: How many samples.
        per_shard: How many of them a shard holds, at most.
        samples: Makes those from one number to another: number and members of each.
    """
    done = finished(out, plan)
    for number in range(plan["shards"]):
        name, first = shard_name(plan["split"], number), number * per_shard
        if name in done:
            continue
        with TarWriter(out / name) as tar:
            for place, fields in samples(first, min(first + per_shard, count)):
                tar.add(f"{plan['split']}-{place:06d}", fields)
        finish_shard(out, tar, plan, [])


def read_parts(out: Path) -> list[Part]:
    """The notes on all finished shards of a folder, in order."""
    parts = [
        (path, parse_json(read_text(path, LARGEST), str(path))) for path in sorted((out / PARTS).glob("*.tar.json"))
    ]
    for path, part in parts:
        if not (
            isinstance(part, dict) and Part.__required_keys__ <= part.keys() and path.name == f"{part['name']}.json"
        ):
            raise UserError(f"{path} is damaged: delete it and its shard, and pack again")
    return [part for _, part in parts]


def _intact(out: Path, part: Part) -> bool:
    path = out / part["name"]
    return path.is_file() and path.stat().st_size == part["bytes"]


def write_index(out: Path) -> bool:
    """Writes `index.json` over all complete splits; False while shards of some split are still missing."""
    parts = read_parts(out)
    if not parts or not all(_complete(parts, split) for split in {part["split"] for part in parts}):
        return False
    keys = ("name", "samples", "bytes", "sha256")
    content = {
        "format": 1,
        "samples": sum(part["samples"] for part in parts),
        "classes": parts[0]["classes"],
        "bad": [bad for part in parts for bad in part["bad"]],
        "shards": [{key: part[key] for key in keys} for part in parts],
    }
    write_json(out / INDEX, content)
    return True


def _complete(parts: list[Part], split: str) -> bool:
    mine = [part for part in parts if part["split"] == split]
    return len(mine) == mine[0]["shards"]
