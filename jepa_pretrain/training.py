"""From a recipe to a run: LightningCLI with what every run has (probes, monitors, checkpoints, record, export)."""

import logging
import sys
import warnings
from pathlib import Path

from jsonargparse import ActionConfigFile
from lightning import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from jepa_pretrain.callbacks.collapse import Collapse
from jepa_pretrain.callbacks.export import Export
from jepa_pretrain.callbacks.probes import OnlineKNN, OnlineProbe
from jepa_pretrain.callbacks.progress import Bar
from jepa_pretrain.callbacks.record import CSV
from jepa_pretrain.contracts import UserError
from jepa_pretrain.methods.base import Method

TRAINER_DEFAULTS = {
    "use_distributed_sampler": False,  # the data side splits by itself
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "logger": False,  # beside metrics.csv
}


class Parser(LightningArgumentParser):
    """Says what is wrong with a recipe, and not every option there is."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        print(f"error: {message.strip()}", file=sys.stderr)
        print("help:  jepa-pretrain fit --help", file=sys.stderr)
        sys.exit(2)


class Fit(LightningCLI):
    """`jepa-pretrain fit`."""

    def __init__(self, args: list[str]) -> None:
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")  # inside Lightning
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # EMA targets are, always
        for chatty in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # tips, advertisements, "Seed set to 0"
        super().__init__(
            Method,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            args=["fit", *args],
        )

    def init_parser(self, **kwargs) -> Parser:
        parser = Parser(**kwargs)
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="recipe, a YAML file")
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": LightningCLI.subcommands()["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str | None, default=None, help="run folder (default: runs/RECIPE)")
        parser.link_arguments("model.grid", "data.init_args.grid", apply_on="instantiate")
        parser.add_lightning_class_args(OnlineProbe, "probe")
        parser.add_lightning_class_args(OnlineKNN, "knn")
        parser.add_lightning_class_args(Collapse, "collapse")
        parser.add_lightning_class_args(Bar, "bar")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_top_k": 0})

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        folder = Path(config.run or Path("runs") / _recipe_name(config.config))
        config.run = str(folder)
        config.trainer.default_root_dir = str(folder)
        config.checkpoint.dirpath = str(folder / "checkpoints")
        if not config.ckpt_path and (folder / "checkpoints" / "last.ckpt").exists():
            raise UserError(
                f"{folder} already holds a run: continue it with --ckpt_path last, choose another folder with --run, "
                "or remove it"
            )

    def instantiate_trainer(self, **kwargs):
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(Export())
        trainer.loggers = [CSV(trainer.default_root_dir), *trainer.loggers]
        return trainer


def _recipe_name(paths: list) -> str:
    """Name of the recipe file; two in different folders stay apart: recipes/demo/ijepa.yaml -> demo_ijepa."""
    if not paths:
        return "unnamed"
    path = Path(str(paths[0]))
    folder = path.parent.name
    return path.stem if folder in ("", "recipes") else f"{folder}_{path.stem}"
