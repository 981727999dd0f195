"""The label of a sample: the text of its `.cls` member, a whole number."""

import re

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard, TooLarge

LABEL = re.compile(rb"\s*(-?\d{1,15})\s*")
LONGEST = 64  # bytes of the text
CLASSES = 1_000_000  # labels past this count no classes; statistics by class would exhaust the memory


def label_of(shard: Shard, number: int, classes: int) -> int:
    """The class number of a sample; -1 where it has none.

    Args:
        shard: An open shard.
        number: The sample.
        classes: How many classes are known; 0 where that is unknown.

    Raises:
        UserError: The text is no whole number, or no class.
    """
    where = f"shard {shard.name}, sample {shard.keys[number]}"
    try:
        text = shard.read(number, "cls", LONGEST)
    except TooLarge as error:
        raise UserError(f"{where}: {error}: it is no label") from None
    if text is None:
        return -1
    match = LABEL.fullmatch(text)
    if match is None:
        raise UserError(f"{where}: the label {bytes(text[:20])!r} is not a whole number")
    label = int(match[1])
    if label < -1 or label >= CLASSES:
        raise UserError(f"{where}: label {label} is no class number; they go from 0 to {CLASSES - 1}, -1 says unknown")
    if classes and label >= classes:
        raise UserError(f"{where}: label {label}, but only {classes} classes are listed")
    return label
