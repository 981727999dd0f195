"""Small hierarchies for tests: an encoder of a few frame tokens and two or three levels."""

from jepa_pretrain.models.abstraction import MacroActions, StateEncoder
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.vit import ViT

WIDTH = 16


def predictor(grid=(1, 1), actions=0, latent=0, width=WIDTH, context=8):
    return TemporalPredictor(width, grid, actions, latent, width=16, depth=1, heads=2, context=context)


def upper(stride=2, macro=4, of_states=False, inputs=WIDTH, latent=None, moments=None, window=1):
    """A level above pooled states."""
    return Level(
        predictor(actions=macro, latent=latent.width if latent else 0),
        StateEncoder(WIDTH, WIDTH, window=window, depth=int(window > 1), heads=2),
        stride,
        MacroActions(inputs, stride + of_states, macro, of_states, hidden=16, heads=2) if macro else None,
        latent,
        moments,
    )


def first(actions=0, latent=None, moments=None, grid=(1, 1), stride=1):
    """A level on the tokens of `frames_encoder`."""
    made = StateEncoder(WIDTH, WIDTH, (2, 2), grid)
    width = latent.width if latent else 0
    return Level(predictor(grid, actions * stride, width), made, stride, latent=latent, moments=moments)


def frames_encoder(tubelet=1):
    return ViT(16, 8, WIDTH, 1, 2, frames=tubelet, tubelet=tubelet)


def hierarchy(*levels, frames=9, tubelet=1, reads=1):
    return Hierarchy(frames_encoder(tubelet), list(levels), frames, tubelet, reads)
