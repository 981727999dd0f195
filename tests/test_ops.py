import pytest
import torch

from jepa_pretrain.contracts import Grid
from jepa_pretrain.ops import gather_tokens, sincos_3d


def test_gather_tokens_of_any_index_shape():
    tokens = torch.arange(24.0).view(2, 4, 3)
    index = torch.tensor([[[0, 3], [1, 1]], [[2, 2], [3, 0]]])
    picked = gather_tokens(tokens, index)
    assert picked.shape == (2, 2, 2, 3)
    assert torch.equal(picked[1, 1, 0], tokens[1, 3])


def test_sincos_matches_the_formula():
    """Vaswani et al., 3.5, on the column and then on the row, as MAE and I-JEPA order them."""
    width, position = 16, sincos_3d(16, Grid(1, 3, 5))
    for token in (0, 7, 14):
        row, column, expected = token // 5, token % 5, []
        for coordinate in (column, row):
            angles = [coordinate / 10000 ** (i / (width / 4)) for i in range(width // 4)]
            expected += [torch.tensor(angles).sin(), torch.tensor(angles).cos()]
        torch.testing.assert_close(position[token], torch.cat(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [24, 32])
def test_sincos_of_clips_is_v_jepas(width):
    """Time, row and column in this order, ceil(width / 6) frequencies each, cut at the end."""
    position, pairs = sincos_3d(width, Grid(2, 3, 5)), -(-width // 6)
    for token in (0, 7, 29):
        expected = []
        for coordinate in (token // 15, token // 5 % 3, token % 5):
            angles = torch.tensor([coordinate / 10000 ** (i / pairs) for i in range(pairs)])
            expected += [angles.sin(), angles.cos()]
        torch.testing.assert_close(position[token], torch.cat(expected)[:width], rtol=1e-5, atol=1e-6)


def test_sincos_tells_every_place_apart():
    position = sincos_3d(32, Grid(4, 6, 6))
    assert position.shape == (144, 32)
    assert (torch.cdist(position, position) + torch.eye(144)).min() > 0.1
