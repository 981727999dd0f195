"""`index.json`: what it may say. It comes with the shards, so a stranger may have written it.

It says how many samples the shards of its own folder hold; it cannot name a file anywhere else, let alone a command:
shards are opened where the user's pattern says, and the manifest is only asked about those.
"""

import re
from typing import Any, NamedTuple

from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import MIB, parse_json, printable, shown, whole

FORMAT = 1
LARGEST = 32 * MIB  # bytes of an index.json: 200,000 shards
SAMPLES = 10_000_000  # of one shard
BYTES = 1 << 50  # of one shard
SMALLEST = 512  # bytes that a sample takes in a plain tar at least: its header
SUM = re.compile(r"([0-9a-f]{64})?")


class Line(NamedTuple):
    """What a manifest says of one shard."""

    name: str  # a plain file name
    samples: int
    bytes: int  # 0 where unknown
    sha256: str  # empty where unknown


def parse(text: str, source: str) -> tuple[list[Line], list[str]]:
    """The shards and the class names of a manifest.

    Args:
        text: Its text.
        source: How messages call it.

    Raises:
        UserError: It is not JSON, of another format, or claims what cannot be.
    """
    raw = parse_json(text, source)
    if not isinstance(raw, dict) or not isinstance(raw.get("shards"), list) or "format" not in raw:
        raise UserError(f"{source} is not a shard index: pack again or remove it")
    if raw["format"] != FORMAT:
        raise UserError(
            f"{source} has format {shown(raw['format'])}; this version of jepa_pretrain reads format {FORMAT}"
        )
    lines = [_line(one, f"{source}, shard {number}") for number, one in enumerate(raw["shards"])]
    seen: set[str] = set()
    for line in lines:
        if line.name in seen:
            raise UserError(f"{source} is not a shard index: it lists {line.name} twice")
        seen.add(line.name)
    return lines, class_names(raw.get("classes"), source)


def class_names(names: Any, source: str) -> list[str]:
    """Class names as they may be printed.

    Args:
        names: What was read where a list of texts should be.
        source: How messages call the file.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{source} is not a shard index: `classes` must be a list of names")
    return [printable(name) for name in names]


def _line(one: Any, where: str) -> Line:
    """One entry, checked."""
    if not isinstance(one, dict) or not {"name", "samples", "bytes", "sha256"} <= one.keys():
        raise UserError(f"{where} is not an entry of a shard index: it needs name, samples, bytes and sha256")
    name, samples, size, checksum = one["name"], one["samples"], one["bytes"], one["sha256"]
    if not isinstance(name, str) or not _plain(name):
        raise UserError(f"{where}: {shown(name)} is no plain file name; an index describes its own folder only")
    if not whole(samples, 0, SAMPLES):
        raise UserError(f"{where}: {shown(samples)} is no number of samples; it goes from 0 to {SAMPLES:,}")
    if not whole(size, 0, BYTES):
        raise UserError(f"{where}: {shown(size)} is no size in bytes")
    if not isinstance(checksum, str) or not SUM.fullmatch(checksum):
        raise UserError(f"{where}: {shown(checksum)} is no sha256 checksum")
    return Line(name, samples, size, checksum)


def _plain(name: str) -> bool:
    """Whether a name stays in its folder: no path, no address, nothing that could not be printed."""
    return 0 < len(name) <= 255 and name.isprintable() and "/" not in name and name not in (".", "..")
