"""The data module: built from a recipe, driven by a trainer, and clear about mistakes."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import RunningStage

from jepa_pretrain.contracts import Batch, Grid, UserError
from jepa_pretrain.data.shards import Reading, Shards
from jepa_pretrain.data.views import CentreCrop, RandomCrop

Make = Callable[..., str]
DATA = Path(os.environ.get("JEPA_DATA", Path(__file__).parents[3] / "shared" / "data"))
warnings.filterwarnings("ignore", module="lightning")


class Recorder(LightningModule):
    """Learns nothing; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_keys: list[list[str]] = []
        self.val_labels: list[int] = []

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        self.train_keys.append(batch.key)
        return self.weight * batch.views[0].float().mean()

    def validation_step(self, batch: Batch, number: int) -> None:
        self.val_labels += batch.label.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def data(pattern: str, **changes: object) -> Shards:
    settings = {"views": [RandomCrop(8)], "val": pattern, "batch_size": 4, "workers": 0, "seed": 1}
    return Shards(pattern, **settings | changes)


def trainer(tmp_path: Path, **settings: object) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", default_root_dir=tmp_path, num_sanity_val_steps=1, **quiet | settings)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_sees_every_epoch_in_its_own_order(tmp_path: Path, shards: Make, workers: int):
    method, module = Recorder(), data(shards(6, 5), workers=workers)
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(method, module)
    assert len(method.train_keys) == 6
    epochs = [method.train_keys[start] + method.train_keys[start + 1] for start in (0, 2, 4)]
    assert all(len(set(keys)) == 8 for keys in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert method.val_labels == [0, 1, 2, *list(range(11)) * 3], "the first three come from the sanity check"
    plain = data(shards(6, 5)).train_dataloader()
    assert [batch.key for _ in range(3) for batch in plain] == method.train_keys


def test_a_resumed_run_sees_what_the_uninterrupted_one_would(tmp_path: Path, shards: Make):
    pattern = shards(20, 21)
    whole, first, second = Recorder(), Recorder(), Recorder()
    trainer(tmp_path, max_steps=25, enable_checkpointing=False).fit(whole, data(pattern))
    keep = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=13)
    trainer(tmp_path, max_steps=13, callbacks=[keep]).fit(first, data(pattern))
    trainer(tmp_path, max_steps=25, enable_checkpointing=False).fit(
        second, data(pattern), ckpt_path=str(tmp_path / "last.ckpt")
    )
    assert first.train_keys + second.train_keys == whole.train_keys


def test_a_recipe_builds_it(shards: Make):
    parser = ArgumentParser()
    parser.add_subclass_arguments(Shards, "data")
    pattern = shards(5)
    crop = "jepa_pretrain.data.views.RandomCrop"
    arguments = {
        "train": pattern,
        "views": [{"class_path": crop, "init_args": {"size": 8, "scale": [0.5, 1.0]}}] * 2,
        "val_view": {"class_path": "jepa_pretrain.data.views.CentreCrop", "init_args": {"size": 10}},
        "grid": [1, 2, 2],
        "batch_size": 2,
        "workers": 0,
        "reading": {"window": 3},
    }
    spec = {"class_path": "jepa_pretrain.data.shards.Shards", "init_args": arguments}
    built = parser.instantiate_classes(parser.parse_object({"data": spec})).data
    assert (built.reading, built.grid) == (Reading(window=3), Grid(1, 2, 2))
    assert [view.scale for view in built.views] == [(0.5, 1.0)] * 2
    assert [view.shape for view in next(iter(built.train_dataloader())).views] == [(2, 3, 1, 8, 8)] * 2
    assert built.val_dataloader() == []


def test_the_validation_view_is_the_centre_in_the_training_size(shards: Make):
    module = data(shards(5), views=[RandomCrop(12)])
    assert isinstance(module.val_view, CentreCrop)
    assert module.val_dataloader() is not None
    assert next(iter(module.val_dataloader())).views[0].shape == (2, 3, 1, 12, 12)


def test_provenance(tmp_path: Path, shards: Make):
    pattern = shards(5, 6)
    (tmp_path / "classes.txt").write_text("\n".join("abcdefghijk"))
    module = data(pattern)
    told = module.provenance()
    assert (told["train"], told["samples"], told["classes"]) == (pattern, 11, list("abcdefghijk"))
    assert told["digest"] == module.index().digest
    assert module.classes == told["classes"]


def test_mistakes_are_explained(tmp_path: Path, shards: Make):
    pattern = shards(5)
    with pytest.raises(UserError, match="has 5 samples, one global batch needs 8"):
        data(pattern, batch_size=8).train_dataloader()
    with pytest.raises(UserError, match="no views"):
        data(pattern, views=[])
    with pytest.raises(UserError, match="no shards match"):
        data(str(tmp_path / "none-*.tar")).train_dataloader()


def test_lightning_leaves_the_split_over_devices_to_us(tmp_path: Path, shards: Make):
    """Even with its default, use_distributed_sampler=True, which would split each rank's part once more."""
    method, module = Recorder(), data(shards(12), batch_size=2)
    fit = trainer(tmp_path, devices=2, strategy="ddp", max_epochs=1, enable_checkpointing=False)
    module.trainer = fit
    assert fit.world_size == 2
    loader = module.train_dataloader()
    assert loader.dataset.order.world == 2
    fit._data_connector.attach_data(method, datamodule=module)
    prepared = fit._data_connector._prepare_dataloader(loader, True, RunningStage.TRAINING)
    assert prepared is loader
    assert prepared.sampler is loader.sampler


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="no real data: set JEPA_DATA to a folder with cifar10")
def test_real_pictures(tmp_path: Path):
    module = Shards(
        str(DATA / "cifar10" / "val-*.tar.gz"), [RandomCrop(32)], workers=0, reading=Reading(cache=str(tmp_path))
    )
    assert module.index().samples == 10000
    assert len(module.classes) == 10
    batch = next(iter(module.train_dataloader()))
    names = [key.split("/")[1].rsplit("_", 1)[0] for key in batch.key]
    assert names == [module.classes[label] for label in batch.label], "the files are named for their classes"
    assert 60 < batch.views[0].float().mean() < 180
