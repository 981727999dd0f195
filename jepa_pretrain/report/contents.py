"""What a run trained on and what came of it, read with patience: whatever is missing is a sentence that says so."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from jepa_pretrain.contracts import Grid, Masks, UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.spans import SINGLE, Span
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.interop.export import from_checkpoint
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.masking import MultiBlock, Random, Tubes
from jepa_pretrain.report.addresses import harmless
from jepa_pretrain.untrusted import MIB, printable, read_text, shown, whole

SMALL = MIB  # bytes of a file that describes a run
ENTRIES = 100_000  # of a recipe
POOL = 1024  # frames read for the neighbours: of so many pictures, or of fewer clips
FEWEST = 64  # clips, however long
STRIDE = 1000  # between the frames of a clip, at most
CLIPS = 64  # read for the energies
MASKERS = {f"jepa_pretrain.masking.{kind.__name__}": kind for kind in (MultiBlock, Random, Tubes)}
MOST = 8  # maskers of a recipe that are drawn
TRIES = 1000  # the largest number that a masker is given, on grids of fewer tokens


class Pictures(NamedTuple):
    """Some labelled pictures or clips."""

    clips: Tensor  # (n, 3, T, H, W) uint8; T = 1 for pictures
    label: Tensor  # (n,)
    classes: list[str]
    source: str

    def name(self, number: int) -> str:
        """The class of one of them, in words."""
        label = int(self.label[number])
        return self.classes[label] if 0 <= label < len(self.classes) else (f"class {label}" if label >= 0 else "")


def recipe(run: Path) -> dict[str, Any]:
    """The resolved recipe, empty where there is none.

    Raises:
        UserError: `config.yaml` is not YAML.
    """
    path = run / "config.yaml"
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(read_text(path, SMALL))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is damaged: {printable(str(error))[:200]}") from None
    if _is_large(content):
        raise UserError(f"{path} is damaged: it holds more than {ENTRIES:,} entries")
    return content if isinstance(content, dict) else {}


def _is_large(content: object) -> bool:
    """Whether there is more than a recipe needs: YAML can refer to one list a billion times, or to itself.

    A long text counts as several entries, since it can be referred to as well.
    """
    left, waiting = ENTRIES, [content]
    while waiting and left >= 0:
        value = waiting.pop()
        parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        left -= len(parts) + (len(value) // 64 if isinstance(value, str) else 0)
        if left >= 0:
            waiting += parts
    return left < 0


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


def pictures(source: str | list[str], size: int, span: Span = SINGLE, count: int = POOL) -> Pictures:
    """The first pictures or videos of some shards.

    Args:
        source: A path, URL, brace or glob pattern, a folder, or a list of these.
        size: Height and width to bring them to.
        span: What a clip covers of a video; a picture is held for as long.
        count: How many frames at most, which clips share.
    """
    index, count = open_index(source), max(count // span.frames, FEWEST)
    clips, label = [], []
    for batch in batches(source, CentreCrop(size), batch_size=64, workers=0, span=span):
        clips.append(batch.views[0])
        label.append(batch.label)
        if sum(map(len, label)) >= count:
            break
    return Pictures(torch.cat(clips)[:count], torch.cat(label)[:count], index.classes, source)


def span(config: dict[str, Any], frames: int) -> Span:
    """The clips that a recipe trains on, as long as its encoder takes; successive frames where it does not say.

    Args:
        config: The recipe.
        frames: Frames of a clip.

    Raises:
        UserError: What it says makes no sense.
    """
    said = _data(config).get("span")
    said = said if isinstance(said, dict) else {}
    stride, fps = said.get("stride") or 1, said.get("fps")
    if not whole(stride, 1, STRIDE) or not (fps is None or (type(fps) in (int, float) and 0 < fps <= STRIDE)):
        raise UserError(f"the recipe's span is damaged: {shown(said)}")
    return Span(frames, stride, fps)


def clips(source: str, config: dict[str, Any], size: int, frames: int) -> tuple[Tensor, Tensor | None]:
    """Clips of the middle of the first videos of some shards, and the actions in them.

    Args:
        source: A path, URL, brace or glob pattern, or a folder.
        config: The recipe, which says how clips are taken.
        size: Height and width to bring them to.
        frames: Of each clip (T).

    Returns:
        `(n, 3, T, H, W)` uint8 and `(n, T, A)`, or None where nothing acted.

    Raises:
        UserError: There are fewer than two, or the recipe's span is damaged.
    """
    batch = next(iter(batches(source, CentreCrop(size), CLIPS, workers=0, span=span(config, frames))))
    if len(batch.views[0]) < 2:
        raise UserError("fewer than two clips: there is no other future to compare with")
    return batch.views[0], batch.actions


def source_of(config: dict[str, Any]) -> str | list[str]:
    """Where the recipe has its validation, else its training pictures.

    Raises:
        UserError: It names none.
    """
    data = _data(config)
    source = data.get("val") or data.get("train")
    if not source:
        raise UserError("the recipe names no shards; give some with --data")
    names = source if isinstance(source, list) else [source]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"the recipe's shards are no patterns ({shown(source)}); give some with --data")
    unsafe = [name for name in names if not harmless(name)]
    if unsafe:
        raise UserError(
            f"the recipe's shards are behind {shown(unsafe[0])}, which may run a command; give it with --data"
        )
    return source


def masks(config: dict[str, Any], grid: Grid, count: int) -> list[Masks]:
    """Masks as the recipe draws them, one of each of its maskers.

    Raises:
        UserError: The method works without masks, or with a masker that is not the package's own.
    """
    specs = _data(config).get("masker")
    if not specs:
        raise UserError("this method uses no masks")
    rng = torch.Generator().manual_seed(0)
    return [_draw(spec, grid, count, rng) for spec in (specs[:MOST] if isinstance(specs, list) else [specs])]


def _draw(spec: object, grid: Grid, count: int, rng: torch.Generator) -> Masks:
    name = spec.get("class_path") if isinstance(spec, dict) else None
    if not isinstance(name, str) or name not in MASKERS:
        raise UserError(f"masks of {shown(name)} are not drawn here, only the package's own")
    arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in _arguments(spec).items()}
    most = max(grid.tokens, TRIES)
    if not all(isinstance(x, int | float) and abs(x) <= most for v in arguments.values() for x in _flat(v)):
        raise UserError("the recipe's masks are described by something else than small numbers")
    try:
        return MASKERS[name](**arguments)(count, grid, rng)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise UserError(f"the recipe's masks cannot be drawn: {printable(str(error))[:200]}") from None


def _flat(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _data(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a recipe's shards; where videos and pictures are mixed, those of the videos."""
    found = _arguments(config.get("data"))
    return _arguments(found.get("videos")) or found


def _arguments(spec: object) -> dict[str, Any]:
    """`init_args` of a class in a recipe."""
    found = spec.get("init_args") if isinstance(spec, dict) else None
    return found if isinstance(found, dict) else {}
