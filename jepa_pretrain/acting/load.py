"""A trained world model from its folder."""

from jepa_pretrain.agent.learned import Learned
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.world import World


def load_world(folder: str) -> Learned:
    """The world model in an exported folder, as planners want it.

    Args:
        folder: Of `agent train`, or the `export` of a `fit`.

    Raises:
        UserError: There is none, or an encoder that predicts nothing.
    """
    found = FrozenEncoder.load(folder).encoder
    if not isinstance(found, World):
        raise UserError(f"{folder} holds an encoder, no world model: `agent train` makes one")
    return Learned(found)
