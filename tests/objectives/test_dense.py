"""The loss on visible tokens, against V-JEPA 2.1's formula written out."""

import torch

from jepa_pretrain.contracts import Grid
from jepa_pretrain.masking import Tubes
from jepa_pretrain.objectives.dense import DenseLoss, nearest_target
from jepa_pretrain.schedules import Constant

GRID = Grid(2, 5, 6)


def test_the_nearer_a_hidden_token_the_more_a_visible_one_counts():
    masks = Tubes(2, (0.2, 0.2))(3, GRID, torch.Generator().manual_seed(1))
    count = masks.context.shape[1]
    predicted, target = torch.randn(2, 3, count, 4)
    place = [(i // 30, i // 6 % 5, i % 6) for i in range(GRID.tokens)]
    total, distances = 0.0, []
    for sample in range(3):
        for i, token in enumerate(masks.context[sample].tolist()):
            hidden = masks.targets[sample].flatten().tolist()
            distances.append(
                min(sum((a - b) ** 2 for a, b in zip(place[token], place[h], strict=True)) for h in hidden)
            )
            error = (predicted[sample, i] - target[sample, i]).abs().mean()
            total += float(error) / distances[-1] ** 0.25  # the square root of the distance
    expected = torch.tensor(distances, dtype=torch.float32).sqrt().view(3, count)
    torch.testing.assert_close(nearest_target(masks, GRID), expected)
    loss = DenseLoss(Constant(0.5))(predicted, target, masks, GRID)
    torch.testing.assert_close(loss, torch.tensor(total / (3 * count)), rtol=1e-5, atol=1e-6)
    flat = DenseLoss(Constant(0.5), by_distance=False)(predicted, target, masks, GRID)
    torch.testing.assert_close(flat, (predicted - target).abs().mean())
    assert expected.max() > 1.5  # some lie farther off
