"""Masks: published geometry, none of the official code's faults, the same for any number of ranks."""

import pytest
import torch

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.masking import MultiBlock, Random, Tubes

GRIDS = [Grid(1, 14, 14), Grid(1, 8, 8), Grid(1, 16, 12), Grid(4, 8, 8)]

SHORT, LONG = Tubes(8, (0.15, 0.15)), Tubes(2, (0.7, 0.7))  # as published


def draw(masker, batch=32, grid=GRIDS[0], seed=0):
    return masker(batch, grid, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("masker", [MultiBlock(), MultiBlock(redraw=0.25), Random(0.75), SHORT, LONG])
def test_contract(masker, grid):
    masks = draw(masker, 16, grid)
    for context, targets in zip(masks.context, masks.targets, strict=True):
        assert not set(context.tolist()) & set(targets.flatten().tolist())  # what is predicted is never seen
        assert len(set(context.tolist())) == len(context)
        assert targets.max() < grid.tokens and context.max() < grid.tokens and min(context.min(), targets.min()) >= 0
    again = draw(masker, 16, grid)
    assert torch.equal(masks.context, again.context) and torch.equal(masks.targets, again.targets)
    assert not torch.equal(masks.targets, draw(masker, 16, grid, seed=1).targets)


def test_targets_are_full_rectangles_of_the_published_size():
    for seed in range(30):
        targets = draw(MultiBlock(), seed=seed).targets
        assert targets.shape[1] == 4
        for block in targets.flatten(0, 1):
            row, column = block // 14, block % 14
            h, w = row.max() - row.min() + 1, column.max() - column.min() + 1
            assert h * w == len(block)
            assert 0.15 * 196 * 0.8 < h * w < 0.2 * 196 * 1.2 and 0.75 * 0.75 < h / w < 1.5 * 1.3


def test_every_place_is_reached():
    """The official sampler never reaches the last row and column, and cuts contexts from the bottom."""
    seen, predicted = torch.zeros(196), torch.zeros(196)
    for seed in range(40):
        masks = draw(MultiBlock(), 64, seed=seed)
        seen += torch.bincount(masks.context.flatten(), minlength=196)
        predicted += torch.bincount(masks.targets.flatten(), minlength=196)
    seen, predicted = seen.view(14, 14), predicted.view(14, 14)
    assert predicted[-1].min() > 0 and predicted[:, -1].min() > 0
    assert torch.allclose(predicted, predicted.flip(0, 1), rtol=0.35)  # the same law seen from the other corner
    assert abs(seen[:3].sum() / seen[-3:].sum() - 1) < 0.05


def test_scale_and_aspect_are_independent():
    """One number for both would tie tall blocks to large ones."""
    sizes = []
    for seed in range(400):
        block = draw(MultiBlock(targets=1), 1, Grid(1, 64, 64), seed).targets[0, 0]
        row, column = block // 64, block % 64
        h, w = int(row.max() - row.min() + 1), int(column.max() - column.min() + 1)
        sizes.append((h * w, h / w))
    correlation = torch.corrcoef(torch.tensor(sizes, dtype=torch.float64).T)[0, 1]
    assert abs(correlation) < 0.15


def test_contexts_keep_the_minimum():
    masks = draw(MultiBlock(min_keep=10), 512, Grid(1, 8, 8))
    assert masks.context.shape[1] >= 10


def test_drawing_the_smallest_again_keeps_contexts_large_whatever_the_batch():
    """Cut to the smallest, contexts shrink as the batch grows; drawn again, they do not."""
    sizes = {}
    for batch in (16, 256):
        for share in (0.0, 0.25):
            drawn = [draw(MultiBlock(redraw=share), batch, Grid(1, 8, 8), seed) for seed in range(25)]
            sizes[batch, share] = sum(masks.context.shape[1] for masks in drawn) / 25
    assert sizes[16, 0.0] - sizes[256, 0.0] > 2 and abs(sizes[16, 0.25] - sizes[256, 0.25]) < 2
    assert sizes[256, 0.25] > sizes[256, 0.0] + 5
    with pytest.raises(UserError, match="redraw"):
        MultiBlock(redraw=1.0)


def test_impossible_masks_end_with_an_error():
    with pytest.raises(UserError, match="4x4 grid"):
        draw(MultiBlock(min_keep=15), 8, Grid(1, 4, 4))
    with pytest.raises(UserError, match="leaves 0"):
        draw(Random(0.9), 8, Grid(1, 2, 2))
    with pytest.raises(UserError):
        Random(1.0)


def test_blocks_are_tubes_on_clips():
    masks = draw(MultiBlock(), 4, Grid(3, 8, 8))
    frames = masks.targets.view(4, 4, 3, -1)
    assert torch.equal(frames[:, :, 0] + 64, frames[:, :, 1]) and torch.equal(frames[:, :, 0] + 128, frames[:, :, 2])


@pytest.mark.parametrize("masker", [SHORT, LONG])
@pytest.mark.parametrize("grid", [Grid(1, 14, 14), Grid(8, 14, 14), Grid(4, 6, 9)])
def test_tubes_hide_the_complement_of_the_context_in_all_frames(masker, grid):
    masks = draw(masker, 24, grid)
    assert masks.targets.shape[1] == 1
    for context, targets in zip(masks.context, masks.targets[:, 0], strict=True):
        assert sorted(context.tolist() + targets.tolist()) == list(range(grid.tokens))
        seen = torch.zeros(grid.tokens, dtype=torch.bool).index_fill(0, context, True).view(grid.t, -1)
        assert torch.equal(seen, seen[:1].expand(grid.t, -1))


def test_tubes_hide_nine_tenths_whatever_the_batch():
    """About .9, V-JEPA says of the two together; the official cut to the smallest hides more in a larger batch."""
    for masker, expected in ((SHORT, 0.76), (LONG, 0.95)):
        shares = {}
        for batch in (24, 240):
            drawn = [draw(masker, batch, Grid(1, 14, 14), seed) for seed in range(40)]
            shares[batch] = sum(masks.targets.shape[2] for masks in drawn) / 40 / 196
        assert abs(shares[24] - expected) < 0.03 and abs(shares[240] - shares[24]) < 0.03


def test_tubes_treat_all_places_alike():
    """The official cut drops the last tokens; ours is symmetric, and no frame's border is lost."""
    seen = torch.zeros(100)
    for seed in range(60):
        seen += torch.bincount(draw(SHORT, 64, Grid(1, 10, 10), seed).context.flatten(), minlength=100)
    seen = seen.view(10, 10)
    assert seen.min() > 0
    assert torch.allclose(seen, seen.flip(0), rtol=0.35) and torch.allclose(seen, seen.flip(1), rtol=0.35)
    assert abs(seen[:3].sum() / seen[-3:].sum() - 1) < 0.05


def test_tubes_of_the_future():
    masks = draw(Tubes(2, (0.4, 0.4), span=0.5), 16, Grid(4, 8, 8))
    assert masks.context.max() < 2 * 64  # nothing of the last two steps is seen
    assert masks.context.shape[1] + masks.targets.shape[2] == 256


def test_impossible_tubes_end_with_an_error():
    with pytest.raises(UserError, match="hide all of the 4x4 grid"):
        draw(Tubes(1, (1.0, 1.0), aspect=(1.0, 1.0)), 8, Grid(2, 4, 4))
    with pytest.raises(UserError, match="span"):
        Tubes(span=0.0)
