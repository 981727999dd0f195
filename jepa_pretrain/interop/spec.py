"""How an encoder is named: `KIND:PLACE?key=number&...`; kind and options are for what a file leaves open."""

from typing import NamedTuple

from jepa_pretrain.contracts import UserError

KINDS = ("random", "timm", "ijepa", "vjepa", "vjepa2")
OPTIONS = ("image_size", "frames", "heads", "predictor_heads", "mask_token", "extrinsics")
FROM_ZERO = ("mask_token", "extrinsics")


class Spec(NamedTuple):
    """What the user named."""

    text: str
    kind: str | None  # one of KINDS, where the user said it
    place: str  # a file, a folder, or timm's name of a model
    options: dict[str, int]


def parse(text: str, image_size: int | None = None) -> Spec:
    """Take the name of an encoder apart.

    Args:
        text: `PLACE`, `KIND:PLACE`, either followed by options, such as `vjepa2:vitl.pt?image_size=256&frames=16`.
            `image_size` and `frames` are the input that the encoder shall take, `heads` and `predictor_heads` the
            attention heads, which no file of Meta's names, and `mask_token` the number of the mask token of V-JEPA's
            predictors, from 0; `extrinsics` is 1 for an action-conditioned predictor that is told the camera's place.
        image_size: The same as the option, which goes first.

    Raises:
        UserError: An option that is unknown or no whole number.
    """
    place, _, tail = text.partition("?")
    kind, colon, rest = place.partition(":")
    options = {} if image_size is None else {"image_size": image_size}
    for part in filter(None, tail.split("&")):
        key, _, value = part.partition("=")
        if key not in OPTIONS or not value.isdecimal() or len(value) > 6:
            raise UserError(f"{text}: {part!r} should read key=number; the keys are {', '.join(OPTIONS)}")
        if int(value) == 0 and key not in FROM_ZERO:
            raise UserError(f"{text}: {key} should be 1 or more, found 0")
        options[key] = int(value)
    known = bool(colon) and kind in KINDS
    return Spec(text, kind if known else None, rest if known else place, options)
