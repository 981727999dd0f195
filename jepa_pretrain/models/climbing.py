"""Levels on top of a world model that is trained already, so that its states need to be made only once."""

import copy

from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.models.abstraction import StateEncoder
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.latent import Latent
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.normalise import Normalise
from jepa_pretrain.models.world import World


class Known(nn.Module):
    """In the place of an encoder of frames, where states are given: frames of one pixel and D channels.

    Args:
        width: D.
    """

    image_size = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.config = dict(width=width)
        self.width, self.grid, self.normalise = width, Grid(1, 1, 1), Normalise((0.0,), (1.0,))

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """`(B, D, 1, 1, 1)` -> `(B, 1, D)`."""
        return clip.flatten(1)[:, None]


def lowest(world: World, dynamics: nn.Module | None = None, latent: Latent | None = None) -> Level:
    """A world model as the lowest level of a hierarchy: copies, which give the same states and predictions.

    Args:
        world: trained.
        dynamics: others on its states, in place of its own.
        latent: the latent variable of those.

    Raises:
        UserError: a projector with other than one hidden layer, or an encoder of clips.
    """
    own = copy.deepcopy(world.dynamics) if dynamics is None else dynamics
    if world.frames > 1:  # the whole world model is what sees
        return Level(own, None, world.block, latent=latent)
    hidden, grid = world.config["hidden"], world.encoder.grid
    if len(hidden) != 1 or grid.t != 1:
        raise UserError(f"a level has one hidden layer on a frame's tokens; this world model has {hidden} on {grid}")
    encoder = StateEncoder(
        world.encoder.width, world.width, (grid.h, grid.w), hidden=hidden[0], batch_norm=True, join=True
    )
    nn.init.zeros_(encoder.moment)
    encoder.head.load_state_dict(world.projector.state_dict())
    return Level(own, encoder, world.block, latent=latent)


def joined(world: World, first: Level, uppers: list[Level]) -> Hierarchy:
    """The whole: pictures, the lowest level, and those above.

    Args:
        world: whose encoder sees; where states are of several pictures, it sees as a whole.
        first: of `lowest`.
        uppers: trained on its states.
    """
    frames = world.block
    for level in uppers:
        frames *= level.stride
    eye = world.encoder if world.frames == 1 else world
    return Hierarchy(copy.deepcopy(eye), [first, *uppers], frames + 1).eval()
