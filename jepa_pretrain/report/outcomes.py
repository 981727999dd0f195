"""What was measured of a run: results of evaluations and alarms, from files that may be damaged or a stranger's."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import MIB, parse_json, printable, read_text

SMALL = MIB  # bytes of a result, and of all alarms
DAMAGE = (UserError, ValueError, KeyError, TypeError, OverflowError, AttributeError)


class Decoded(NamedTuple):
    """What was read from one layer of an encoder."""

    encoder: str
    layer: str
    scores: dict[str, float]  # by factor: R2, or for `shape` the accuracy in percent


class Alarm(NamedTuple):
    """Something that went wrong in a run, in plain words."""

    step: int
    kind: str
    message: str


def results(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The outcomes in `RUN/eval`, best first within each protocol, and the files that could not be read."""
    found, damaged = [], []
    for path in sorted((run / "eval").glob("*.json")):
        try:
            content = parse_json(read_text(path, SMALL), path.name)
            if content["protocol"] == "decode":
                _decoded(content)  # it is told elsewhere, but here where it cannot be read
            else:
                found.append(_result(content))
        except DAMAGE as error:
            damaged.append(f"{printable(path.name)} is no result of an evaluation ({printable(repr(error))[:200]})")
    found.sort(key=lambda one: (one["protocol"] != "linear", one["protocol"], -one["top1"]))
    return found, damaged


def decoded(run: Path) -> list[Decoded]:
    """What `eval decode` found, from `RUN/eval`; files that cannot be read are told by `results`."""
    found = []
    for path in sorted((run / "eval").glob("*.json")):
        try:
            content = parse_json(read_text(path, SMALL), path.name)
            if content["protocol"] == "decode":
                found += _decoded(content)
        except DAMAGE:
            continue
    return found


def _decoded(content: dict[str, Any]) -> list[Decoded]:
    rows = []
    for layer, factors in content["layers"].items():
        scores = {str(name): float(one["score"]) for name, one in factors.items()}
        if not all(map(math.isfinite, scores.values())):
            raise ValueError("a score that is not finite")
        rows.append(Decoded(str(content["encoder"]), str(layer), scores))
    return rows


def _result(content: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an outcome as numbers, its names as text, whatever the file makes of them."""
    low, high = (float(bound) for bound in content["interval"])
    numbers = {"top1": float(content["top1"]), "interval": [low, high]}
    if not all(math.isfinite(x) for x in (low, high, numbers["top1"])):
        raise ValueError("an accuracy that is not finite")
    if "test_samples" in content:
        numbers["test_samples"] = int(content["test_samples"])
    if not isinstance(content.get("chosen"), dict):
        content.pop("chosen", None)
    return content | numbers | {"protocol": str(content["protocol"]), "encoder": str(content["encoder"])}


def alarms(run: Path) -> list[Alarm]:
    """The alarms of a run in the order of their steps; lines that cannot be read are left out."""
    path, found = run / "alarms.jsonl", []
    for line in read_text(path, SMALL).splitlines() if path.is_file() else []:
        try:
            content = parse_json(line, str(path))
            found.append(Alarm(int(content["step"]), str(content["kind"]), str(content["message"])))
        except DAMAGE:  # torn, as a killed process leaves its last line
            continue
    return sorted(found)
