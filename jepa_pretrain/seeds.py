"""Seeds: whatever is drawn at random is drawn from a seed that says what it is for, so that no state has to be kept."""

import struct
from hashlib import blake2b


def seed_of(*parts: int) -> int:
    """A 63-bit seed from whole numbers; neighbouring inputs give unrelated seeds.

    Args:
        parts: whole numbers in the range of int64, such as seed, epoch and position.
    """
    digest = blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
