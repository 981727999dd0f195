"""Parts of an agent as plain data, as they are read from files that may be anybody's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import check_shapes
from jepa_pretrain.interop.weights import fill, shapes
from jepa_pretrain.untrusted import shown

NUMBERS = 1 << 16  # the largest whole number and the longest list in an agent.json
REFUSED = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, ArithmeticError)


def checked(value: object, known: dict[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """Class and arguments of a part, all of them plain and of bounded size.

    Args:
        value: should be `{"class": name, "args": {...}}`.
        known: classes by name.
        source: where it is from, for the message.

    Raises:
        UserError: anything else.
    """
    if not isinstance(value, dict) or value.keys() != {"class", "args"} or not isinstance(value["args"], dict):
        raise UserError(f"{source}: expected a class and its args, found {shown(value)}")
    if not isinstance(value["class"], str) or value["class"] not in known:
        raise UserError(f"{source}: unknown class {shown(value['class'])}; known: {', '.join(sorted(known))}")
    for key, one in value["args"].items():
        if not bounded(one):
            raise UserError(f"{source}: {value['class']} refuses {shown(key)}: {shown(one)}")
    return value["class"], value["args"]


def bounded(value: object, depth: int = 0) -> bool:
    """Whether it is a number, a word, or a list of lists of such, and small."""
    if isinstance(value, list):
        return depth < 2 and len(value) <= NUMBERS and all(bounded(one, depth + 1) for one in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return -NUMBERS <= value <= NUMBERS
    return value is None or isinstance(value, str | bool | float)


def settings(value: object, known: dict[str, type], tensors: dict[str, Tensor], source: str) -> Any:
    """A part made of plain arguments and tensors; arguments as in `checked`."""
    name, args = checked(value, known, source)
    return refusing(source, lambda: known[name](**args, **tensors))


def refusing(source: str, make: Callable[[], Any]) -> Any:
    """What `make` makes, with a plain word where a class refuses its arguments."""
    try:
        return make()
    except REFUSED as error:
        raise UserError(f"{source}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}") from error


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def module_of(value: object, known: dict[str, type[nn.Module]], weights: dict[str, Tensor], source: str) -> nn.Module:
    """A critic or policy with its weights; compared with them before any memory is taken."""
    name, args = checked(value, known, source)
    with torch.device("meta"):
        check_shapes(shapes(refusing(source, lambda: known[name](**args)).state_dict()), shapes(weights), source)
    module = refusing(source, lambda: known[name](**args))
    fill(module, weights, source)
    return module.eval()
