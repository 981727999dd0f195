"""What a run folder holds, read with patience: whatever is missing comes back as a sentence that says so."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from jepa_pretrain.contracts import Grid, Masks, UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.interop.export import from_checkpoint
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.masking import MultiBlock, Random

POOL = 1024  # pictures read for the neighbours
MASKERS = {"jepa_pretrain.masking.MultiBlock": MultiBlock, "jepa_pretrain.masking.Random": Random}


class Pictures(NamedTuple):
    """Some labelled pictures."""

    images: Tensor  # (n, 3, H, W) uint8
    label: Tensor  # (n,)
    classes: list[str]
    source: str

    def name(self, number: int) -> str:
        """The class of one picture, in words."""
        label = int(self.label[number])
        return self.classes[label] if 0 <= label < len(self.classes) else (f"class {label}" if label >= 0 else "")


class Alarm(NamedTuple):
    """Something that went wrong in a run, in plain words."""

    step: int
    kind: str
    message: str


def recipe(run: Path) -> dict[str, Any]:
    """The resolved recipe, empty where there is none.

    Raises:
        UserError: `config.yaml` is not YAML.
    """
    path = run / "config.yaml"
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    return content if isinstance(content, dict) else {}


def encoder(run: Path) -> FrozenEncoder:
    """The encoder of a run, from its export or else from its last checkpoint.

    Raises:
        UserError: There is neither, or it is damaged.
    """
    checkpoint = run / "checkpoints" / "last.ckpt"
    if (run / "export").is_dir():
        return FrozenEncoder.load(run / "export")
    if not checkpoint.is_file():
        raise UserError("the run has neither an export nor a checkpoint yet")
    return FrozenEncoder(*from_checkpoint(checkpoint))


def pictures(source: str, size: int, count: int = POOL) -> Pictures:
    """The first pictures of some shards.

    Args:
        source: A path, URL, brace or glob pattern, or a folder.
        size: Height and width to bring them to.
        count: How many at most.
    """
    index = open_index(source)
    images, label = [], []
    for batch in batches(source, CentreCrop(size), batch_size=64, workers=0):
        images.append(batch.views[0][:, :, 0])
        label.append(batch.label)
        if sum(map(len, label)) >= count:
            break
    return Pictures(torch.cat(images)[:count], torch.cat(label)[:count], index.classes, source)


def source_of(config: dict[str, Any]) -> str | list[str]:
    """Where the recipe has its validation, else its training pictures.

    Raises:
        UserError: It names none.
    """
    data = _arguments(config.get("data"))
    source = data.get("val") or data.get("train")
    if not source:
        raise UserError("the recipe names no shards; give some with --data")
    return source


def masks(config: dict[str, Any], grid: Grid, count: int) -> Masks:
    """Masks as the recipe draws them.

    Raises:
        UserError: The method works without masks, or with a masker that is not the package's own.
    """
    spec = _arguments(config.get("data")).get("masker")
    if not spec:
        raise UserError("this method uses no masks")
    name = spec.get("class_path", "")
    if name not in MASKERS:
        raise UserError(f"masks of {name} are not drawn here, only the package's own")
    arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in (spec.get("init_args") or {}).items()}
    return MASKERS[name](**arguments)(count, grid, torch.Generator().manual_seed(0))


def results(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The outcomes in `RUN/eval`, best first within each protocol, and the files that could not be read."""
    found, damaged = [], []
    for path in sorted((run / "eval").glob("*.json")):
        try:
            content = json.loads(path.read_text())
            float(content["top1"]), [float(bound) for bound in content["interval"]]
            found.append(content | {"protocol": str(content["protocol"]), "encoder": str(content["encoder"])})
        except (ValueError, KeyError, TypeError) as error:
            damaged.append(f"{path.name} is no result of an evaluation ({error!r})")
    found.sort(key=lambda one: (one["protocol"] != "linear", one["protocol"], -one["top1"]))
    return found, damaged


def alarms(run: Path) -> list[Alarm]:
    """The alarms of a run in the order of their steps; lines that cannot be read are left out."""
    path, found = run / "alarms.jsonl", []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            content = json.loads(line)
            found.append(Alarm(int(content["step"]), str(content["kind"]), str(content["message"])))
        except (ValueError, KeyError, TypeError):  # torn, as a killed process leaves its last line
            continue
    return sorted(found)


def _arguments(spec: object) -> dict[str, Any]:
    """`init_args` of a class in a recipe."""
    return (spec.get("init_args") or {}) if isinstance(spec, dict) else {}
