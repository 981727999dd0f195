"""Clips through the loader: the same for any number of ranks and workers, mixed with pictures, with their actions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from small_shards import jpeg, write_tar
from small_videos import VALUES, frames, video

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.order import Shuffled
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.shards import Shards
from jepa_pretrain.data.spans import Span, actions_at
from jepa_pretrain.data.stream import Loader, batches
from jepa_pretrain.data.views import Augment, CentreCrop, RandomCrop

SPAN = Span(frames=4, stride=2)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve videos of different lengths; the actions at frame i are (i, -i)."""
    folder, samples = tmp_path_factory.mktemp("videos"), []
    for number in range(12):
        count = 12 + 2 * number
        actions = torch.arange(count)[:, None] * torch.tensor([1.0, -1.0])
        fields = {"mp4": video(frames(count)), "cls": str(number).encode()}
        samples.append((f"v{number:02d}", fields | {"actions.safetensors": save({"actions": actions})}))
    write_tar(folder / "train-000000.tar", samples[:7])
    write_tar(folder / "train-000001.tar", samples[7:])
    return str(folder / "train-*.tar")


def training(pattern: str, world: int = 1, rank: int = 0, batch: int = 4, workers: int = 0, **place: int) -> Loader:
    index = open_index(pattern)
    order = Shuffled(index.sizes, batch, world, rank, seed=3)
    views = [RandomCrop(16, flip=0.5), Augment(16)]
    return Loader(Pictures(index, order, views, span=SPAN), workers, **place)


def same(one: Batch, other: Batch) -> bool:
    assert one.key == other.key
    return torch.equal(one.actions, other.actions) and all(map(torch.equal, one.views, other.views))


def shown(view: torch.Tensor) -> list[list[int]]:
    """Which of the numbered frames (B, C, T, H, W) are, by their brightness."""
    values = view[:, 0, :, -2:, -2:].float().mean((-1, -2))  # (B, T)
    return [[int((torch.tensor(VALUES) - value).abs().argmin()) for value in row] for row in values]


def test_ranks_workers_and_a_later_start_change_nothing(pattern: str):
    alone = list(training(pattern))
    assert [view.shape for view in alone[0].views] == [(4, 3, 4, 16, 16)] * 2
    halves = zip(training(pattern, 2, 0, 2), training(pattern, 2, 1, 2), strict=True)
    for whole, worked, parts in zip(alone, training(pattern, workers=2), halves, strict=True):
        assert same(whole, worked)
        for row, part in enumerate(parts):
            mine = slice(2 * row, 2 * row + 2)
            assert part.key == whole.key[mine]
            assert all(torch.equal(a, b[mine]) for a, b in zip(part.views, whole.views, strict=True))
    later, again = list(training(pattern, start=8)), list(training(pattern, epoch=1))
    assert len(later) == 1
    assert same(later[0], alone[2])
    first, second = ({k: a for b in one for k, a in zip(b.key, b.actions, strict=True)} for one in (alone, again))
    assert any(not torch.equal(first[key], second[key]) for key in first), "every epoch takes other clips"


def test_a_view_treats_all_frames_alike(pattern: str):
    """Frames of one video made equal stay equal, whatever is drawn; and the views differ from each other."""
    clip = torch.randint(256, (1, 3, 40, 56), dtype=torch.uint8).expand(5, -1, -1, -1)
    for view in (RandomCrop(16, flip=0.5), Augment(16, blur=1.0, solarize=0.5), CentreCrop(16)):
        for seed in range(8):
            torch.manual_seed(seed)
            seen = view(clip)
            assert seen.shape == (5, 3, 16, 16)
            assert (seen == seen[:1]).all()
            torch.manual_seed(seed)
            assert torch.equal(view(clip[0]), seen[0]), "as a picture with the same draws"


def test_evaluation_reads_the_middle_or_evenly_spread_clips(pattern: str):
    view = CentreCrop(16)
    (one,) = batches(pattern, view, workers=0, span=SPAN)
    firsts = [row[0] for row in shown(one.views[0])]
    assert firsts == [int(0.5 * (12 + 2 * number - 6)) for number in range(12)]
    (three,) = batches(pattern, view, workers=0, span=SPAN, clips=3)
    assert len(three.views) == 3
    spread = [[row[0] for row in shown(view)] for view in three.views]
    assert spread == [[int(place * (6 + 2 * n)) for n in range(12)] for place in (1 / 6, 1 / 2, 5 / 6)]


def test_actions_are_those_of_the_frames(pattern: str):
    (batch,) = batches(pattern, CentreCrop(16), workers=0, span=SPAN)
    numbers = torch.tensor(shown(batch.views[0])).float()
    last = torch.tensor([12 + 2 * sample - 1 for sample in range(12)])[:, None]  # frames of the videos
    following = torch.minimum(numbers + 1, last)
    assert batch.actions.shape == (12, 4, 4), "two frames' actions of width 2, up to the next frame"
    for number, expected in enumerate((numbers, -numbers, following, -following)):
        assert torch.equal(batch.actions[..., number], expected)
    (rated,) = batches(pattern, CentreCrop(16), workers=0, span=Span(frames=4, fps=5))
    assert rated.actions.shape == (12, 4, 2), "by rate, their mean"
    ramp = torch.arange(10.0)[:, None]
    assert actions_at(ramp, [0, 3, 6, 9], 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 9, 9]]
    assert actions_at(torch.stack([ramp[:, 0], -ramp[:, 0]], 1), [4], 2).tolist() == [[4, -4, 5, -5]]
    assert actions_at(ramp, [3, 4, 5]).flatten().tolist() == [3, 4, 5]
    assert actions_at(ramp, [0, 4, 8]).flatten().tolist() == [1.5, 5.5, 8.5], "the last as far as it goes"
    assert actions_at(ramp, [2, 2, 3, 3]).flatten().tolist() == [2, 2, 3, 3], "a frame that is held"
    assert actions_at(ramp, [7]).flatten().tolist() == [7]


def test_pictures_and_videos_mix_and_pictures_are_held(tmp_path: Path):
    samples = [(f"a{n}", {"mp4": video(frames(9)), "cls": b"0"}) for n in range(3)]
    samples += [(f"b{n}", {"jpg": jpeg(n, (32, 48)), "cls": b"1"}) for n in range(3)]
    source = str(write_tar(tmp_path / "mixed.tar", samples))
    (batch,) = Shards(source, [RandomCrop(16)], batch_size=6, workers=0, span=SPAN).train_dataloader()
    view = batch.views[0]
    assert view.shape == (6, 3, 4, 16, 16)
    held = (view == view[:, :, :1]).flatten(1).all(1)
    assert held.tolist() == [label == 1 for label in batch.label.tolist()]
    assert batch.actions is None
    (single,) = Shards(source, [RandomCrop(16)], batch_size=6, workers=0).train_dataloader()
    assert single.views[0].shape == (6, 3, 1, 16, 16)


def test_broken_videos_are_counted_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    good = video(frames(9))
    samples = [(f"a{n}", {"mp4": good if n % 3 else b"no video", "cls": b"0"}) for n in range(6)]
    samples.append(("acts", {"mp4": good, "actions.safetensors": b"damaged"}))
    source = str(write_tar(tmp_path / "a.tar", samples))
    (batch,) = Shards(source, [RandomCrop(16)], batch_size=7, workers=0, span=SPAN).train_dataloader()
    assert set(batch.key) == {f"a/a{n}" for n in (1, 2, 4, 5)}
    assert len(batch.key) == 7
    assert [text for text in caplog.messages if "a/a0" in text and "not a video" in text]
    assert [text for text in caplog.messages if "a/acts" in text and "tensors" in text]
    (tested,) = batches(source, CentreCrop(16), workers=0, span=SPAN)
    assert len(tested.key) == 4
    assert tested.views[0].shape[0] == 4


def test_actions_that_do_not_fit_are_told(tmp_path: Path):
    def read(*tables: torch.Tensor | None) -> None:
        acted = [{} if one is None else {"actions.safetensors": save({"actions": one})} for one in tables]
        samples = [(f"a{n}", {"mp4": video(frames(9))} | fields) for n, fields in enumerate(acted)]
        source = str(write_tar(tmp_path / "a.tar", samples))
        list(Shards(source, [RandomCrop(16)], batch_size=len(tables), workers=0, span=SPAN).train_dataloader())

    with pytest.raises(UserError, match="pack them apart"):
        read(torch.zeros(9, 2), None)
    with pytest.raises(UserError, match="pack them apart"):
        read(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(UserError, match="actions for 3 frames"):
        read(torch.zeros(3, 2))


def test_memory_is_laid_out_for_the_convolution(pattern: str):
    batch = next(iter(training(pattern, workers=1)))
    assert batch.views[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert batch.views[1].is_contiguous(), "augmented in floating point, channels first"
    assert np.asarray(batch.views[0]).dtype == np.uint8
