"""A contact sheet: some pictures of a set of shards, with the names of their classes."""

import math
import re

import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard, TooLarge
from jepa_pretrain.data.clips import EXTENSIONS, decode
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.data.labels import label_of
from jepa_pretrain.data.spans import SINGLE
from jepa_pretrain.data.views import resize

CELL, LINE, GAP = 112, 16, 6  # pixels: picture, caption, space between


def show(shards: str, out: str = "contact.png", count: int = 64, cache: str | None = None) -> None:
    """Draw a contact sheet of pictures spread evenly over some shards.

    Args:
        shards: A path, URL, brace or glob pattern, or a folder.
        out: The PNG file to write.
        count: How many pictures.
        cache: Folder for copies of compressed and remote shards.
    """
    if count < 1:
        raise UserError("count must be at least 1")
    index = open_index(shards, cache)
    cells = [_cell(*one, index) for one in _spread(index, count)]
    columns = min(math.ceil(math.sqrt(len(cells))), 12)
    rows = math.ceil(len(cells) / columns)
    sheet = Image.new("RGB", (columns * (CELL + GAP) + GAP, rows * (CELL + LINE + GAP) + GAP), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (GAP + number % columns * (CELL + GAP), GAP + number // columns * (CELL + LINE + GAP)))
    try:
        sheet.save(out)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {out}: {error}") from None
    Console(highlight=False).print(f"{len(cells)} of {index.samples} pictures in {out}", soft_wrap=True)


def _spread(index: Index, count: int) -> list[tuple[Shard, int]]:
    """Evenly spaced samples; only the shards they lie in are opened."""
    count = min(count, index.samples)
    wanted, start, found = [number * index.samples // count for number in range(count)], 0, []
    for entry in index.shards:
        here = [number - start for number in wanted if start <= number < start + entry.samples]
        shard = entry.open(index.cache) if here else None
        found += [(shard, number) for number in here]
        start += entry.samples
    return found


def _cell(shard: Shard, number: int, index: Index) -> Image.Image:
    """One picture, fitted into a square, above its caption."""
    cell = Image.new("RGB", (CELL, CELL + LINE), "white")
    caption = _caption(label_of(shard, number, len(index.classes)), index.classes)
    try:
        image = _picture(shard, number)
    except (BrokenPicture, TooLarge):
        caption = "broken"
        image = torch.full((3, CELL, CELL), 128, dtype=torch.uint8)
    factor = CELL / max(image.shape[1:])
    image = resize(image, max(round(image.shape[1] * factor), 1), max(round(image.shape[2] * factor), 1))
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    ImageDraw.Draw(cell).text((2, CELL + 1), caption, "black", ImageFont.load_default(11))
    return cell


def _picture(shard: Shard, number: int) -> torch.Tensor:
    """(C, H, W): a picture, or four frames of a video from its first to its last, in reading order."""
    extension = shard.first(number, EXTENSIONS)
    if extension is None:
        raise BrokenPicture("no picture or video")
    clips = decode(shard.read(number, extension), extension, SINGLE, [0, 1 / 3, 2 / 3, 1])
    frames = list({clip.numbers[0]: clip.frames[0] for clip in clips}.values())  # a picture is four times the same
    columns = math.ceil(math.sqrt(len(frames)))
    frames += [torch.full_like(frames[0], 255)] * (-len(frames) % columns)
    return torch.cat([torch.cat(frames[at : at + columns], 2) for at in range(0, len(frames), columns)], 1)


def _caption(label: int, classes: list[str]) -> str:
    if label < 0:
        return ""
    name = re.sub(r"^n\d{8}[ _]", "", classes[label]) if classes else f"class {label}"  # without WordNet's number
    return name[:18]
