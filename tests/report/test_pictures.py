import base64
import io

import numpy as np
import torch
from PIL import Image

from jepa_pretrain.contracts import Grid, Masks
from jepa_pretrain.report import features, masks, neighbours, tiles

GRID = Grid(1, 4, 4)


def test_png_keeps_the_pixels():
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    data = base64.b64decode(tiles.png(image).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image.permute(1, 2, 0).numpy())


def test_enlarging_keeps_whole_pixels():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    assert torch.equal(tiles.enlarge(image)[:, ::4, ::4], image)
    assert tiles.enlarge(torch.zeros(3, 224, 224, dtype=torch.uint8)).shape == (3, 144, 144)


def test_context_is_bright_and_targets_are_outlined():
    white = torch.full((1, 3, 36, 36), 200, dtype=torch.uint8)
    drawn = masks.draw(white, Masks(torch.tensor([[0]]), torch.tensor([[[10, 11, 14, 15]]])), GRID)[0]
    cell = drawn.shape[-1] // 4
    centre = drawn[0, cell // 2 :: cell, cell // 2 :: cell]  # (4, 4), the middle of each token
    assert centre[0, 0] == 200 and (centre.flatten()[1:] == int(200 * masks.DIM)).all()
    colour = masks.COLOURS[0].to(torch.uint8)
    edge = drawn[:, 2 * cell, 2 * cell :]  # first row of the target block
    assert (edge == colour[:, None]).all()
    assert (drawn[:, -1, 2 * cell :] == colour[:, None]).all()  # also along the border of the picture
    assert not (drawn[:, 2 * cell - 1, 2 * cell :] == colour[:, None]).all()  # nothing outside


def test_equal_tokens_have_equal_colours_in_all_pictures():
    rng = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 20, generator=rng)
    kind = torch.randint(0, 3, (5, 16), generator=rng)
    shown = features.colours(kinds[kind], GRID)
    flat = shown.permute(0, 2, 3, 1).reshape(-1, 3)
    found = {c: {tuple(pixel) for pixel in flat[kind.flatten() == c].tolist()} for c in range(3)}
    assert all(len(pixels) == 1 for pixels in found.values())
    assert len(set().union(*found.values())) == 3


def test_constant_features_make_a_picture_too():
    assert features.colours(torch.ones(2, 16, 1), GRID).shape == (2, 3, 4, 4)
    assert features.tile(torch.zeros(3, 7, 7, dtype=torch.uint8)).shape == (3, 144, 144)


def test_neighbours_are_the_most_similar_others():
    angle = torch.tensor([0.0, 0.1, 3.0, 3.2, 0.3, 1.5])
    points = torch.stack([angle.cos(), angle.sin()], dim=1) * torch.tensor([1, 9, 1, 5, 1, 1])[:, None]
    rows = neighbours.find(points, torch.tensor([0, 0, 1, 1, 0, -1]), rows=2, k=2)
    assert [(row.query, row.neighbours) for row in rows] == [(0, [1, 4]), (2, [3, 5])]
    assert neighbours.find(points[:2], torch.tensor([0, 1]), k=5) == []


def test_queries_without_labels():
    rows = neighbours.find(torch.randn(10, 4), torch.full((10,), -1), rows=3, k=2)
    assert [row.query for row in rows] == [0, 1, 2]


def test_film_shows_what_each_mask_leaves_in_each_frame():
    white = torch.full((3, 4, 36, 36), 200, dtype=torch.uint8)
    grid, hidden = Grid(2, 4, 4), torch.arange(32).view(1, 1, 32)
    drawn = masks.film(white, [Masks(torch.tensor([[0]]), hidden), Masks(torch.tensor([[16 + 5]]), hidden)], grid)
    cell, step = 36, 4 * 36 + masks.GAP  # a frame grows to 144 pixels
    assert drawn.shape == (3, 3 * step - masks.GAP, 2 * step - masks.GAP)
    places = {(1, 0, 0, 0), (2, 1, 1, 1)}  # row of the film, frame, row, column of the one bright token
    for row, frame, h, w in {(r, f, h, w) for r in (1, 2) for f in (0, 1) for h in range(4) for w in range(4)}:
        middle = drawn[0, row * step + h * cell + 18, frame * step + w * cell + 18]
        assert middle == (200 if (row, frame, h, w) in places else int(200 * masks.DIM))
    assert (drawn[:, :144, :144] == 200).all() and (drawn[:, 144:step, :] == 255).all()
