"""Pictures among clips: whose turn it is, the same for ranks, workers and resumes; a mixed model trains on both."""

from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from small_shards import numbered, write_tar
from small_videos import frames, video

from jepa_pretrain.contracts import Batch, Grid, UserError
from jepa_pretrain.data.mixed import Mixed, Turns
from jepa_pretrain.data.order import Draw, Shuffled
from jepa_pretrain.data.shards import Shards
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.views import RandomCrop
from jepa_pretrain.masking import Random

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos and ten pictures."""
    made = tmp_path_factory.mktemp("mixed")
    write_tar(made / "video.tar", [(f"v{n:02d}", {"mp4": video(frames(8)), "cls": b"1"}) for n in range(12)])
    write_tar(made / "picture.tar", numbered(0, 10))
    return made


def data(folder: Path, every: int = 3, batch: int = 2, workers: int = 0, **changes: object) -> Mixed:
    shared = {"views": [RandomCrop(8)], "batch_size": batch, "masker": Random(0.5)}
    videos = Shards(f"{folder}/video.tar", span=Span(4), workers=workers, seed=1, **shared)
    return Mixed(videos, Shards(f"{folder}/picture.tar", **shared | {"seed": 2} | changes), every, Grid(2, 2, 2))


def kinds(batches: list[Batch]) -> str:
    return "".join("p" if batch.views[0].shape[2] == 1 else "v" for batch in batches)


def same(one: Batch, other: Batch) -> bool:
    masks = all(torch.equal(a.context, b.context) for a, b in zip(one.masks, other.masks, strict=True))
    return one.key == other.key and torch.equal(one.views[0], other.views[0]) and masks


def test_turns():
    turns = Turns(Shuffled([12], 2), Shuffled([10], 2), 3)
    found = [[turns.turn(Draw(epoch, first)) for first in turns.draws] for epoch in range(2)]
    assert [second for second, _ in found[0]] == [False, False, True] * 3
    assert [own for second, own in found[0] if not second] == [Draw(0, first) for first in range(0, 12, 2)]
    shown = [own for epoch in found for second, own in epoch if second]  # a pass has five, whatever the epochs
    assert shown == [Draw(0, first) for first in range(0, 10, 2)] + [Draw(1, 0)]


def test_a_batch_holds_one_kind_with_masks_of_its_own(folder: Path):
    batches = list(data(folder).train_dataloader())
    assert kinds(batches) == "vvpvvpvvp"
    clip, picture = batches[0], batches[2]
    assert clip.views[0].shape == (2, 3, 4, 8, 8) and clip.masks[0].context.shape == (2, 4)
    assert picture.views[0].shape == (2, 3, 1, 8, 8) and picture.masks[0].context.shape == (2, 2)
    assert max(int(batch.masks[0].context.max()) for batch in batches if kinds([batch]) == "p") < 4
    assert set(clip.label.tolist()) == {1} and set(picture.label.tolist()) == {-1}  # a probe's classes are the videos'
    assert len({key for batch in batches for key in batch.key}) == 18, "each once in an epoch"


def test_ranks_workers_and_replay_change_nothing(folder: Path):
    alone = list(data(folder, batch=4, every=2).train_dataloader())
    assert kinds(alone) == "vpvpvp"
    worked = list(data(folder, batch=4, every=2, workers=2).train_dataloader())
    assert all(map(same, alone, worked))
    halves = data(folder, batch=2, every=2)
    for number, whole in enumerate(alone):
        draw = Draw(0, number * 4)
        assert same(data(folder, batch=4, every=2).batch(draw), whole)
        assert [key for rank in range(2) for key in halves.batch(draw, rank, 2).key] == whole.key


class Recorder(LightningModule):
    """Learns nothing; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Batch] = []

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        self.seen.append(batch)
        return self.weight * batch.views[0].float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def run(folder: Path, tmp_path: Path, steps: int, **settings: object) -> list[Batch]:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    kept, resumed = settings.pop("kept", None), settings.pop("resumed", None)
    callbacks = {"callbacks": [kept]} if kept else {"enable_checkpointing": False}
    method = Recorder()
    Trainer(default_root_dir=tmp_path, max_steps=steps, **quiet, **callbacks).fit(
        method, data(folder), ckpt_path=resumed
    )
    return method.seen


def test_a_resumed_run_sees_what_the_uninterrupted_one_would(folder: Path, tmp_path: Path):
    whole = run(folder, tmp_path, 20)
    assert kinds(whole) == "vvp" * 6 + "vv"
    first = run(folder, tmp_path, 13, kept=ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=13))
    second = run(folder, tmp_path, 20, resumed=str(tmp_path / "last.ckpt"))
    assert all(map(same, [*first, *second], whole)) and len(first) + len(second) == 20


def test_place_of_a_checkpoint(folder: Path):
    before = data(folder).standing()
    again = data(folder)
    assert again.resume(1, 5, before) == (5, 1.0)
    assert same(next(iter(again.train_dataloader())), data(folder).batch(Draw(1, 10)))
    for other, words in (
        (data(folder, every=2), "every was 3, now 2"),
        (data(folder, seed=5), "pictures_seed"),
        (data(folder, batch=3), "global batch of 2, not with 3"),
    ):
        with pytest.raises(UserError, match=words):
            other.resume(1, 5, before)


def test_what_cannot_be_is_one_line(folder: Path):
    with pytest.raises(UserError, match="2 or more"):
        data(folder, every=1).train_dataloader()
    with pytest.raises(UserError, match="batches of one size"):
        data(folder, batch_size=5)
    with pytest.raises(UserError, match="one frame"):
        data(folder, span=Span(4))
