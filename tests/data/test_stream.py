"""Batches: complete, equal for any number of ranks and workers, and robust against broken samples."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_shards import encoded, jpeg, numbered, write_tar

from jepa_pretrain.contracts import Batch, Grid, Masks, UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.order import InOrder, Shuffled
from jepa_pretrain.data.stream import Loader, Pictures, batches
from jepa_pretrain.data.views import Augment, CentreCrop, RandomCrop

Make = Callable[..., str]


class RandomMasks:
    """A masker whose result shows the generator and the size it was called with."""

    def __call__(self, batch_size: int, grid: Grid, rng: torch.Generator) -> Masks:
        context = torch.randint(grid.tokens, (batch_size, 3), generator=rng)
        return Masks(context, torch.randint(grid.tokens, (batch_size, 2, 2), generator=rng))


def training(pattern: str, world: int = 1, rank: int = 0, batch: int = 4, workers: int = 0, **place: int) -> Loader:
    index = open_index(pattern)
    order = Shuffled(index.sizes, batch, world, rank, seed=3, window=2)
    views = [RandomCrop(8, flip=0.5), Augment(8)]
    return Loader(Pictures(index, order, views, [RandomMasks()], Grid(1, 4, 4)), workers, **place)


def joined(ranks: list[list[Batch]]) -> list[Batch]:
    """The global batches that several ranks make together."""
    steps = []
    for parts in zip(*ranks, strict=True):
        views = [torch.cat(column) for column in zip(*[part.views for part in parts], strict=True)]
        masks = [Masks(*(torch.cat(x) for x in zip(*[part.masks[0] for part in parts], strict=True)))]
        keys = [key for part in parts for key in part.key]
        steps.append(Batch(views, masks, torch.cat([part.label for part in parts]), keys))
    return steps


def same(one: list[Batch], other: list[Batch]) -> bool:
    assert len(one) == len(other)
    return all(
        a.key == b.key
        and torch.equal(a.label, b.label)
        and all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))
        and all(torch.equal(x, y) for x, y in zip(a.masks[0], b.masks[0], strict=True))
        for a, b in zip(one, other, strict=True)
    )


def test_shapes_types_and_keys(shards: Make):
    batch = next(iter(training(shards(5, 6))))
    assert [(view.shape, view.dtype) for view in batch.views] == [((4, 3, 1, 8, 8), torch.uint8)] * 2
    assert batch.label.dtype == torch.int64
    assert batch.masks[0].context.shape == (4, 3)
    for key, label in zip(batch.key, batch.label.tolist(), strict=True):
        shard, sample = key.split("/")
        assert sample == f"s{label:05d}"
        assert shard == ("train-000000" if label < 5 else "train-000001")


def test_ranks_and_workers_change_nothing(shards: Make):
    pattern = shards(7, 1, 12, 5)  # fewer shards than workers x ranks, and uneven ones
    alone = list(training(pattern, batch=8))
    assert len(alone) == 3
    assert same(alone, joined([list(training(pattern, 2, rank, 4)) for rank in range(2)]))
    assert same(alone, joined([list(training(pattern, 4, rank, 2)) for rank in range(4)]))
    assert same(alone, list(training(pattern, batch=8, workers=3)))


def test_evaluation_is_exactly_once_over_ranks_and_workers(shards: Make):
    index = open_index(shards(3, 0, 8, 1))
    for world, workers in ((1, 0), (3, 0), (2, 2)):
        loaders = [
            Loader(Pictures(index, InOrder(index.sizes, 2, world, rank), [CentreCrop(8)]), workers)
            for rank in range(world)
        ]
        read = [label for loader in loaders for batch in loader for label in batch.label.tolist()]
        assert sorted(read) == list(range(12))
        assert len({len(loader) for loader in loaders}) == 1
        again = [label for loader in loaders for batch in loader for label in batch.label.tolist()]
        assert sorted(again) == list(range(12)), "a second pass reads the same"


def test_starting_later_equals_skipping(shards: Make):
    pattern = shards(9, 9)
    whole = list(training(pattern))
    assert same(whole[2:], list(training(pattern, start=2 * 4)))
    assert not same(whole, list(training(pattern, epoch=1)))


def test_the_state_continues_where_it_was_taken(shards: Make):
    pattern = shards(9, 9)
    first = training(pattern, workers=2)
    list(first)  # epoch 0
    running = iter(first)
    for _ in range(2):
        next(running)
    state = first.state_dict()
    assert state == {"epoch": 1, "start": 8}
    rest = list(running)
    second = training(pattern)
    second.load_state_dict(state)
    assert same(rest, list(second))
    second.load_state_dict({"epoch": 0, "start": 16})
    assert same(list(second), list(training(pattern, epoch=1)))


def test_reading_leaves_the_random_state_alone(shards: Make):
    loader = training(shards(8))
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


def spoil(tmp_path: Path, count: int, broken: dict[int, bytes]) -> str:
    samples = numbered(0, count)
    for number, data in broken.items():
        samples[number][1]["jpg"] = data
    return str(write_tar(tmp_path / "train-000000.tar", samples))


def test_a_broken_sample_is_replaced_in_training_and_dropped_in_evaluation(tmp_path: Path, caplog):
    pattern = spoil(tmp_path, 12, {3: b"text named .jpg", 7: jpeg()[:100]})
    with caplog.at_level(logging.WARNING):
        one, two = list(training(pattern)), joined([list(training(pattern, 2, rank, 2)) for rank in range(2)])
    assert same(one, two), "the replacement does not depend on ranks"
    labels = [label for batch in one for label in batch.label.tolist()]
    assert len(labels) == 12
    assert set(labels) == set(range(12)) - {3, 7}
    messages = [record.message for record in caplog.records]
    assert any("train-000000/s00003" in message for message in messages)
    loader = batches(pattern, CentreCrop(8), batch_size=5, workers=0)
    assert [label for batch in loader for label in batch.label.tolist()] == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]


def test_each_broken_sample_is_logged_once(tmp_path: Path, caplog):
    loader = batches(spoil(tmp_path, 6, {2: b"x"}), CentreCrop(8), workers=0)
    for _ in range(3):
        list(loader)
    assert len([record for record in caplog.records if "broken" in record.message]) == 1
    assert (loader.dataset.samples.seen, loader.dataset.samples.broken) == (18, 3)


def test_an_evaluation_batch_may_be_all_broken(tmp_path: Path):
    pattern = spoil(tmp_path, 4, {0: b"x", 1: b"x"})
    shapes = [batch.views[0].shape for batch in batches(pattern, CentreCrop(8), batch_size=2, workers=0)]
    assert shapes == [(0, 3, 1, 8, 8), (2, 3, 1, 8, 8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_samples_stop_the_run_with_one_line(tmp_path: Path, workers: int):
    pattern = spoil(tmp_path, 200, {number: b"x" for number in range(0, 200, 5)})
    with pytest.raises(
        UserError, match=r"samples read are broken.*the latest: train-000000/s\d+ \(not a picture\)"
    ) as error:
        list(batches(pattern, CentreCrop(8), batch_size=20, workers=workers))
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_few_broken_samples_are_tolerated_whatever_their_share(tmp_path: Path):
    loader = batches(spoil(tmp_path, 12, {n: b"x" for n in range(9)}), CentreCrop(8), workers=0)
    assert [len(batch.key) for batch in loader] == [3]


def test_odd_pictures_go_through(tmp_path: Path):
    pictures = {
        "cmyk": encoded(Image.new("CMYK", (9, 7)), "JPEG"),
        "deep": encoded(Image.new("I;16", (9, 7), 40000), "PNG"),
        "grey": encoded(Image.new("L", (9, 7)), "JPEG"),
        "palette": encoded(Image.new("P", (9, 7)), "PNG"),
        "alpha": encoded(Image.new("RGBA", (9, 7)), "PNG"),
        "dot": encoded(Image.new("RGB", (1, 1)), "PNG"),
    }
    path = write_tar(tmp_path / "a.tar", [(key, {"jpg": data}) for key, data in pictures.items()])
    (batch,) = batches(str(path), CentreCrop(8), workers=0)
    assert batch.views[0].shape == (6, 3, 1, 8, 8)
    assert batch.label.tolist() == [-1] * 6, "no label file"
    assert int(batch.views[0][1].float().mean()) == 40000 >> 8


def test_labels_must_fit_the_classes(tmp_path: Path, shards: Make):
    pattern = shards(4)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"train-000000, sample s00002: label 2, but only 2 classes"):
        list(batches(pattern, CentreCrop(8), workers=0))
    write_tar(tmp_path / "bad.tar", [("a", {"jpg": jpeg(), "cls": b"cat"})])
    with pytest.raises(UserError, match="is not a whole number"):
        list(batches(str(tmp_path / "bad.tar"), CentreCrop(8), workers=0))


def test_pictures_of_different_sizes_are_explained(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("a", {"jpg": jpeg()}), ("b", {"jpg": jpeg(size=(8, 8))})])
    with pytest.raises(UserError, match="different sizes"):
        list(batches(str(path), lambda image: image, workers=0))


def test_a_masker_needs_a_grid_and_a_batch_a_view(shards: Make):
    index = open_index(shards(4))
    with pytest.raises(UserError, match="grid"):
        Pictures(index, Shuffled(index.sizes, 2), [CentreCrop(8)], [RandomMasks()])
    with pytest.raises(UserError, match="no views"):
        Pictures(index, Shuffled(index.sizes, 2), [])
