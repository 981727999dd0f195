"""The headers of a tar, walked once: USTAR, GNU and pax, with bounded memory whatever the headers claim.

Python's `tarfile` reads as much as a header says and follows chains of headers by recursion, which is right for one's
own archives and not for a stranger's. Format: POSIX.1-2017, pax, and the GNU tar manual, "Basic Tar Format".
"""

import os
from typing import NamedTuple

from jepa_pretrain.untrusted import printable

BLOCK = 512
REGULAR = frozenset(b"\x000\x37")  # "7" is a contiguous file
EMPTY = frozenset(b"123456")  # links, devices, folders: no contents, whatever their headers say
SPARSE = ord("S")
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"LKxg"
EXTRA = 1 << 20  # bytes that a long name or a pax header may have
MEMBERS = 10_000_000  # of one shard; each costs a few hundred bytes of memory


class Damaged(Exception):
    """The bytes are no tar, or one that cannot be honest."""


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str  # printable
    offset: int  # of its contents
    size: int


def walk(file: int) -> tuple[list[Member], bool]:
    """The regular files of an open tar, and whether it ends too early. Links and devices are left out.

    Args:
        file: Descriptor of a seekable file.

    Raises:
        Damaged: A header is wrong, or claims what cannot be.
    """
    members: list[Member] = []
    end, at, extra = os.fstat(file).st_size, 0, {}
    while at < end:
        head = os.pread(file, BLOCK, at)
        if len(head) < BLOCK:
            return members, True
        if head[0] == 0 and not head.strip(b"\0"):
            return members, False
        kind, size, start = head[156], _size(head), at + BLOCK
        _check_sum(head)
        if kind in (LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL):
            extra |= _extra(file, kind, start, size, end)
        elif kind in REGULAR or kind == SPARSE:
            size = extra.get("size", size)
            if start + size > end:
                return members, True
            if kind != SPARSE and "sparse" not in extra:
                members.append(Member(printable(extra.get("name") or _name(head)), start, size))
            if kind == SPARSE:
                start = _after_map(file, head, start)
            extra = {}
        else:
            size, extra = 0 if kind in EMPTY else size, {}
        if len(members) > MEMBERS:
            raise Damaged(f"it holds more than {MEMBERS:,} files")
        at = start + (size + BLOCK - 1) // BLOCK * BLOCK
    return members, bool(extra)


def _size(head: bytes) -> int:
    """The size field: octal digits, or base 256 where its first bit is set."""
    field = head[124:136]
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise Damaged("a header claims a negative size")
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int:
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):  # `int` would take signs and underscores
        raise Damaged("a header is damaged or no tar header")
    return int(digits or b"0", 8)


def _check_sum(head: bytes) -> None:
    found = sum(head) - sum(head[148:156]) + 8 * 32
    if _octal(head[148:156]) == found:
        return
    signed = found - 256 * sum(byte > 127 for i, byte in enumerate(head) if not 148 <= i < 156)
    if _octal(head[148:156]) != signed:  # some old programs summed signed bytes
        raise Damaged("the checksum of a header is wrong")


def _extra(file: int, kind: int, start: int, size: int, end: int) -> dict:
    """What an extended header says about the next member: `name`, `size`, `sparse`."""
    if size > EXTRA:
        raise Damaged(f"an extended header claims {size:,} bytes")
    if start + size > end:
        raise Damaged("it ends inside an extended header")
    if kind in (LONG_LINK, PAX_GLOBAL):
        return {}
    data = os.pread(file, size, start)
    if kind == LONG_NAME:
        return {"name": _text(data.split(b"\0", 1)[0])}
    return _pax(data)


def _pax(data: bytes) -> dict:
    """Records `LENGTH KEY=VALUE` with a newline at the end of each, LENGTH counting all of it."""
    found, at = {}, 0
    while at < len(data) and data[at]:
        digits = data[at : at + 8].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if length <= len(digits) + 1 or at + length > len(data) or not equals:
            raise Damaged("a pax header is damaged")
        at += length
        if key == b"path":
            found["name"] = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                raise Damaged("a pax header claims a size that is no number")
            found["size"] = int(value)
        elif key.startswith(b"GNU.sparse"):
            found["sparse"] = True
    return found


def _after_map(file: int, head: bytes, start: int) -> int:
    """Where the contents of an old GNU sparse file begin: its map goes on in further blocks while a flag says so."""
    more = head[482]
    while more:
        block = os.pread(file, BLOCK, start)
        if len(block) < BLOCK:
            raise Damaged("it ends inside the map of a sparse file")
        more, start = block[504], start + BLOCK
    return start


def _name(head: bytes) -> str:
    name = head[:100].split(b"\0", 1)[0]
    if head[257:263] == b"ustar\0" and head[345]:
        name = head[345:500].split(b"\0", 1)[0] + b"/" + name
    return _text(name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
