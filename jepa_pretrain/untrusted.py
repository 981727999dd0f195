"""Reading what a stranger may have written: so many bytes and no more, plain data only, text that is safe to print.

The limits are far above what this package writes, and low enough that a reader's memory stays bounded.
"""

import json
from pathlib import Path
from typing import Any, BinaryIO

from jepa_pretrain.contracts import UserError

MIB = 1 << 20


def printable(text: str) -> str:
    """The text with everything escaped that is not a letter, digit, sign or plain space.

    Terminal control sequences, line breaks, text-direction marks and undecodable bytes come out as `\\x1b` or alike.

    Args:
        text: Any text, such as the name of a file in an archive.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def read_text(path: Path, limit: int) -> str:
    """A small UTF-8 text file.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        UserError: It cannot be opened, is larger, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            return text_of(file, limit, str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def text_of(stream: BinaryIO, limit: int, source: str) -> str:
    """All of a stream as text; a stream that does not end is left after `limit` bytes.

    Args:
        stream: An open file or connection.
        limit: Bytes that it may give.
        source: How the message calls it.

    Raises:
        UserError: There is more, or it is not UTF-8.
    """
    data = bytearray()
    while len(data) <= limit and (piece := stream.read(min(MIB, limit + 1 - len(data)))):
        data += piece
    if len(data) > limit:
        raise UserError(f"{source} is larger than the {limit / MIB:g} MiB that such a file may have")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is damaged: it is not UTF-8 text ({error.reason})") from None


def parse_json(text: str, source: str) -> Any:
    """What a JSON text says.

    Args:
        text: The text.
        source: How the message calls it.

    Raises:
        UserError: It is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{source} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{source} is damaged: it is not JSON ({printable(str(error))})") from None


def whole(value: object, low: int, high: int) -> bool:
    """Whether a value read from JSON is a whole number within bounds; `true` is none.

    Args:
        value: Anything.
        low: The least that is allowed.
        high: The most that is allowed.
    """
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def shown(value: object, length: int = 60) -> str:
    """A value read from a stranger's file, short and safe enough for an error message.

    Args:
        value: Anything that JSON can hold.
        length: Characters to keep.
    """
    if isinstance(value, dict | list) and len(value) > length:
        return f"{type(value).__name__} of {len(value)}"
    text = printable(repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge number")
    return text if len(text) <= length else text[:length] + "..."
