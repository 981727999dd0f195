"""Tar shards with random access: the headers are walked once, then any member is one read away.

Samples are runs of neighbouring members with the same key, as in WebDataset: `key.ext`, the key ends at the first dot
of the file name. Only regular files count; links and devices are ignored and never followed.
"""

import os
import re
import tarfile
from pathlib import Path

import numpy as np

from jepa_pretrain.contracts import UserError

BLOCK = 512
EXTENDED = frozenset(b"xgLKSV")  # pax and GNU headers that change the next member: left to `tarfile`
REGULAR = frozenset(b"\x000")
NAME = re.compile(r"^((?:.*/)?[^./]+)\.([^/]+)$")


class Unusual(Exception):
    """The header walk met something that only `tarfile` understands."""


class Shard:
    """An open tar: its sample keys, and the bytes of any member.

    Args:
        path: A plain (not compressed) tar on this machine.
        name: How messages call the shard; the file's name by default.
        expected: Samples that the index promises; an error says so when the tar holds another number.
    """

    def __init__(self, path: str | Path, name: str | None = None, expected: int | None = None):
        self.path, self.name = str(path), name or Path(path).name
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"cannot open shard {path}: {error.strerror}") from None
        self.keys: list[str] = []
        self.spans: dict[str, np.ndarray] = {}  # extension -> (S, 2) offset and size, -1 where a sample has none
        members, cut = self._members()
        self._group(members)
        found = len(self.keys)
        if expected is not None and found != expected:
            raise UserError(f"shard {self.name}: the index says {expected} samples, the tar holds {found}: replace it")
        if cut:
            raise UserError(f"shard {self.name} is truncated: it ends inside a member, after {found} whole samples")

    def __len__(self) -> int:
        return len(self.keys)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, sample: int, extension: str) -> bytearray | None:
        """The bytes of one member, or None where the sample has no such member."""
        spans = self.spans.get(extension)
        if spans is None:
            return None
        offset, size = spans[sample].tolist()
        if offset < 0:
            return None
        data = bytearray(size)
        done = os.preadv(self._file, [data], offset)
        while done < size:  # rare: huge members, network file systems
            count = os.preadv(self._file, [memoryview(data)[done:]], offset + done)
            if count == 0:
                raise UserError(f"shard {self.name} became shorter while it was read")
            done += count
        return data

    def first(self, sample: int, extensions: tuple[str, ...]) -> str | None:
        """Which of several extensions the sample has a member of: the first of them, or None."""
        return next((one for one in extensions if one in self.spans and self.spans[one][sample, 0] >= 0), None)

    def read_first(self, sample: int, extensions: tuple[str, ...]) -> bytearray | None:
        """The bytes of the first member that the sample has out of several, or None."""
        extension = self.first(sample, extensions)
        return None if extension is None else self.read(sample, extension)

    def fields(self, sample: int) -> dict[str, bytearray]:
        """All members of one sample, by extension, in the order of the tar."""
        present = [key for key, spans in self.spans.items() if spans[sample, 0] >= 0]
        return {key: self.read(sample, key) for key in sorted(present, key=lambda key: self.spans[key][sample, 0])}

    def _members(self) -> tuple[list[tuple[str, int, int]], bool]:
        """(name, offset, size) of the regular files, and whether the tar ends too early."""
        try:
            return _walk(self._file)
        except Unusual:
            pass
        try:
            with tarfile.open(self.path, "r:") as tar:
                members = [(one.name, one.offset_data, one.size) for one in tar if one.isreg() and not one.issparse()]
        except (tarfile.TarError, EOFError, OverflowError) as error:
            raise UserError(f"shard {self.name} is not a readable tar: {error}") from None
        end = os.fstat(self._file).st_size
        whole = [one for one in members if one[1] + one[2] <= end]
        return whole, len(whole) < len(members)

    def _group(self, members: list[tuple[str, int, int]]) -> None:
        """Fills `keys` and `spans` from the members."""
        rows: dict[str, list[tuple[int, int, int]]] = {}
        here: set[str] = set()
        for name, offset, size in members:
            match = NAME.match(name)
            if match is None:
                continue
            key, extension = match[1], match[2].lower()
            if not self.keys or key != self.keys[-1]:
                self.keys.append(key)
                here.clear()
            if extension in here:
                raise UserError(
                    f"shard {self.name}: two members are called {name}; keys must differ from sample to sample"
                )
            here.add(extension)
            rows.setdefault(extension, []).append((len(self.keys) - 1, offset, size))
        for extension, found in rows.items():
            table = np.asarray(found, dtype=np.int64)
            self.spans[extension] = np.full((len(self.keys), 2), -1, dtype=np.int64)
            self.spans[extension][table[:, 0]] = table[:, 1:]


def _walk(file: int) -> tuple[list[tuple[str, int, int]], bool]:
    """Members of a plain USTAR file: one read of 512 bytes each, no Python objects but the names."""
    members: list[tuple[str, int, int]] = []
    end, at = os.fstat(file).st_size, 0
    while at < end:
        head = os.pread(file, BLOCK, at)
        if len(head) < BLOCK:
            return members, True
        if head[0] == 0 and not head.strip(b"\0"):
            return members, False
        kind, size = _check(head)
        start = at + BLOCK
        at = start + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind in REGULAR:
            if start + size > end:
                return members, True
            members.append((_name(head), start, size))
    return members, False


def _check(head: bytes) -> tuple[int, int]:
    """Type and size of the member behind a header; `Unusual` where `tarfile` must decide."""
    kind = head[156]
    if kind in EXTENDED or head[124] & 0x80:
        raise Unusual
    try:
        size = int(head[124:136].strip(b" \0") or b"0", 8)
        checksum = int(head[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        raise Unusual from None
    if sum(head) - sum(head[148:156]) + 8 * 32 != checksum:
        raise Unusual
    return kind, size if kind in REGULAR or kind == ord("7") else 0


def _name(head: bytes) -> str:
    name = head[:100].split(b"\0", 1)[0]
    if head[257:263] == b"ustar\0" and head[345]:
        name = head[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")
