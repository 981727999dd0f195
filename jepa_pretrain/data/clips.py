"""Clips from bytes. A picture is a clip of one frame, held for as long as a clip lasts."""

from importlib import import_module
from types import ModuleType

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data import images
from jepa_pretrain.data.spans import Span, Taken

VIDEOS = ("mp4", "avi", "webm", "mkv", "mov", "m4v", "mpg", "mpeg", "ogv", "wmv", "flv", "3gp", "ts")
EXTENSIONS = (*VIDEOS, *images.EXTENSIONS)


def decode(data: bytearray, extension: str, span: Span, places: list[float]) -> list[Taken]:
    """Decodes clips of a video, or one clip that is a picture.

    Args:
        data: The encoded bytes.
        extension: What they are. An animated `gif` is a video for clips of several frames, else a picture.
        span: What a clip covers.
        places: Where each lies, see `Span.choose`.

    Raises:
        BrokenPicture: The bytes cannot be decoded, or are too large.
    """
    if is_video(extension) or (extension == "gif" and span.frames > 1):
        return videos().decode_clips(data, span, places)
    return [Taken(images.decode(data)[None], [0])] * len(places)


def check(data: bytearray, extension: str) -> None:
    """Decodes all of a picture or a video.

    Raises:
        BrokenPicture: That cannot be done.
    """
    if is_video(extension):
        videos().check(data)
    else:
        images.decode(data)


def is_video(extension: str) -> bool:
    """Whether a member is a video by its extension."""
    return extension in VIDEOS


def videos() -> ModuleType:
    """The module that decodes videos, whose library is needed for videos only."""
    try:
        return import_module("jepa_pretrain.data.videos")
    except ImportError as error:
        raise UserError(f"videos need PyAV: install the extra, jepa-pretrain[video] ({error})") from None
