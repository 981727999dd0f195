"""What a file is by its first bytes, for messages about files that are not what they should be."""

from pathlib import Path

SEEN = 512  # bytes that are looked at
BEGINNINGS = (  # the first that fits
    (b"PK\x03\x04", "a zip archive, whole or cut off"),
    (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19",
        "torch's format from before 1.6: open and save it again with torch",
    ),
    (b"\x80", "a bare pickle, which could run code"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    (b"<", "a web page: the download has failed"),
    (b"{", "JSON text"),
)


def found(path: Path) -> str:
    """What lies there, in a few words with its size.

    Args:
        path: A file that can be read, or cannot.
    """
    try:
        with open(path, "rb") as file:
            head, size = file.read(SEEN), path.stat().st_size
    except OSError as error:
        return f"nothing that can be read ({error.strerror})"
    if not head:
        return "an empty file"
    return f"{_kind(head)} ({size:,} bytes)"


def _kind(head: bytes) -> str:
    for beginning, kind in BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[8:10] == b'{"':
        return "safetensors"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    return "something else"
