"""V-JEPA 2-AC's released file as a world model."""

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.reading import read_parts
from jepa_pretrain.interop.spec import parse
from jepa_pretrain.models.action_world import ActionWorld


def load_action_world(path: str) -> ActionWorld:
    """Encoder and action-conditioned predictor of a file of Meta's, on the CPU, in evaluation mode, without gradients.

    Args:
        path: such as `vjepa2-ac-vitg.pt`, with options as in `interop.spec`; `frames` is twice the moments that the
            predictor can look back on.

    Raises:
        UserError: no such file, a damaged one, or one without such a predictor.
    """
    parts = read_parts(parse(path))
    if parts.dynamics is None:
        raise UserError(f"{path} has no action-conditioned predictor: expected V-JEPA 2-AC, found {parts.origin}")
    encoder, predictor = parts.encoder.make(path), parts.dynamics.make(f"{path}: predictor")
    return ActionWorld(encoder, predictor).eval().requires_grad_(False)
