"""Tensors beside a picture or a video, as one member: safetensors, which are typed, compact and never code."""

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.untrusted import printable

ACTIONS = "actions.safetensors"  # the member that becomes `Batch.actions`: one tensor, `actions` (F, A) float
TRUTH = "truth.safetensors"  # the member that only evaluations read


def write_tensors(**tensors: Tensor) -> bytes:
    """The content of a member."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def read_tensors(data: bytes | bytearray) -> dict[str, Tensor]:
    """The tensors in a member.

    Raises:
        BrokenPicture: It is not one that `write_tensors` made.
    """
    try:
        return load(bytes(data))
    except SafetensorError as error:
        raise BrokenPicture(printable(f"tensors cannot be read: {error}")) from None


def read_actions(data: bytes | bytearray, frames: int) -> Tensor:
    """The actions (F, A) float32 of a video.

    Args:
        data: The member.
        frames: How many actions are needed at least: one for each frame up to the last that is used.
    """
    actions = read_tensors(data).get("actions")
    if actions is None or actions.ndim != 2 or not actions.is_floating_point():
        raise BrokenPicture("its actions are not a table, one row per frame")
    if len(actions) < frames:
        raise BrokenPicture(f"it has actions for {len(actions)} frames, and more frames than that")
    return actions.float()
