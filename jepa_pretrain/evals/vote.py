"""Classification by the weighted vote of nearest neighbours, in one call; the parts are in `neighbours`."""

from torch import Tensor

from jepa_pretrain.evals.neighbours import nearest, vote


def weighted_vote(
    query: Tensor, keys: Tensor, values: Tensor, classes: int, k: int, temperature: float = 0.07
) -> Tensor:
    """Class scores from the k most similar keys, each weighing exp(cosine similarity / temperature).

    Args:
        query: `(B, D)` features, of any length.
        keys: `(S, D)` features of unit length.
        values: `(S,)` their classes.
        classes: number of classes.
        k: neighbours that vote, at most S.
        temperature: of the weights.

    Returns:
        `(B, classes)` scores, not normalised.
    """
    similarity, index = nearest(query, keys, k)  # (B, k)
    return vote(similarity, values[index], classes, temperature)
