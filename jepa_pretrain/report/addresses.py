"""Which addresses of shards may be taken from the recipe in a run folder, which may come from a stranger.

What the user writes on the command line or trains from may be a shell command (`pipe:`), or whatever fsspec can chain.
A report only draws pictures, so here an address has to be a plain one: a path, or a URL of a known kind.
"""

import re

SCHEMES = ("http", "https", "s3", "gs", "file")
MOST = 1_000_000  # shards that a range in braces may name
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def harmless(pattern: str) -> bool:
    """Whether opening the shards of a pattern runs no command and takes no unbounded memory.

    Args:
        pattern: As in `data.train` of a recipe; braces can spell what a plain search would not find.
    """
    scheme, sign, rest = pattern.partition("://")
    if sign and (scheme not in SCHEMES or re.search(r":(?!\d)", rest)):
        return False  # a colon that begins no port: a chained protocol
    if not sign and ":" in pattern:
        return False
    ranges = RANGE.findall(pattern)
    large = any(len(low) > 12 or len(high) > 12 or abs(int(high) - int(low)) > MOST for low, high in ranges)
    return pattern.count("{") <= 1 and not large
