"""Tar shards with random access: the headers are walked once, then any member is one read away.

Samples are runs of neighbouring members with the same key, as in WebDataset: `key.ext`, the key ends at the first dot
of the file name. Only regular files count; links and devices are ignored and never followed, and a name is only ever a
name: nothing is written under it, and what could not be printed safely is escaped.
"""

import os
import re
from pathlib import Path

import numpy as np

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.headers import Damaged, Member, walk

NAME = re.compile(r"^((?:.*/)?[^./]+)\.([^/]+)$")
MEMBER = 640_000_000  # bytes of a member that is read: 100 megapixels at six bytes each, and some to spare
CELLS = 100_000_000  # samples times extensions, of the table that says where everything lies: 1.6 GB


class TooLarge(Exception):
    """A member has more bytes than the reader wants to hold."""


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
        try:
            members, cut = walk(self._file)
        except Damaged as error:
            raise UserError(f"shard {self.name} is not a readable tar: {error}") from None
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

    def read(self, sample: int, extension: str, limit: int = MEMBER) -> bytearray | None:
        """The bytes of one member, or None where the sample has no such member.

        Args:
            sample: Its number.
            extension: Which member.
            limit: Bytes that it may have.

        Raises:
            TooLarge: It has more.
        """
        spans = self.spans.get(extension)
        if spans is None:
            return None
        offset, size = spans[sample].tolist()
        if offset < 0:
            return None
        if size > limit:
            raise TooLarge(f"the {extension} member has {size:,} bytes, more than {limit:,}")
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
        """All members of one sample, by extension, in the order of the tar.

        Raises:
            TooLarge: Together they are larger than one member may be.
        """
        present = [key for key, spans in self.spans.items() if spans[sample, 0] >= 0]
        total = sum(int(self.spans[key][sample, 1]) for key in present)
        if total > MEMBER:
            raise TooLarge(f"the sample has {total:,} bytes, more than {MEMBER:,}")
        return {key: self.read(sample, key) for key in sorted(present, key=lambda key: self.spans[key][sample, 0])}

    def _group(self, members: list[Member]) -> None:
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
        if len(rows) * len(self.keys) > CELLS:
            raise UserError(
                f"shard {self.name}: {len(self.keys)} samples have {len(rows)} different extensions; "
                "a key ends at the first dot, so names must hold no other dots"
            )
        for extension, found in rows.items():
            table = np.asarray(found, dtype=np.int64)
            self.spans[extension] = np.full((len(self.keys), 2), -1, dtype=np.int64)
            self.spans[extension][table[:, 0]] = table[:, 1:]
