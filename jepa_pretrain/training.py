"""From a recipe to a run: LightningCLI with what every run has (probes, monitors, checkpoints, record, export)."""

import logging
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from jsonargparse import ActionConfigFile, DefaultHelpFormatter
from lightning import LightningDataModule, Trainer
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from jepa_pretrain.callbacks.checkpoint import Checkpoints, newest
from jepa_pretrain.callbacks.collapse import Collapse
from jepa_pretrain.callbacks.export import Export
from jepa_pretrain.callbacks.guard import Guard
from jepa_pretrain.callbacks.peers import Peers
from jepa_pretrain.callbacks.probes import OnlineKNN, OnlineProbe
from jepa_pretrain.callbacks.progress import Bar
from jepa_pretrain.callbacks.recipe import Recipe
from jepa_pretrain.callbacks.record import CSV
from jepa_pretrain.callbacks.starts import Starts
from jepa_pretrain.callbacks.stopping import Stopped
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.beginning import begin_from
from jepa_pretrain.interop.checkpoint import read
from jepa_pretrain.methods.base import Method
from jepa_pretrain.mistakes import plain_errors
from jepa_pretrain.recipe import brief
from jepa_pretrain.strategies import PATIENCE, SyncBatchNorm

TRAINER_DEFAULTS = {
    "use_distributed_sampler": False,  # the data side splits by itself
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "logger": False,  # beside metrics.csv
}


USAGE = "jepa-pretrain fit --config RECIPE.yaml [--run FOLDER] [--KEY VALUE ...]"
ABOUT = """\
Train a recipe; metrics, a checkpoint and the encoder end in a run folder.

  --config RECIPE.yaml      what to train: recipes/*.yaml
  --run FOLDER              where its results go (default: runs/RECIPE)
  --KEY VALUE               any key of the recipe, by its path:
                              --trainer.max_steps 100   --data.batch_size 32
                              --model.encoder.depth 6   --data.train 'tars/*'
  --init X                  begin with X's weights: all that --encoder takes
  --ckpt_path last          go on with an interrupted run, from its checkpoint
  --print_config            the recipe with all defaults, and stop
  --model.help CLASS        the keys of a class, by its full name, such as
                              jepa_pretrain.methods.ijepa.IJEPA; likewise
                              --model.encoder.help, --data.help, ...

All keys that do not depend on the recipe follow; `trainer` is Lightning's."""


class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of the description as they are."""


class Parser(LightningArgumentParser):
    """Says what is wrong with a recipe, and not every option there is."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        if not self.exit_on_error:  # the parser of a part, whose message the whole one wraps
            super().error(message, ex)
        print(f"error: {brief(message)}", file=sys.stderr)
        print("help:  jepa-pretrain fit --help", file=sys.stderr)
        sys.exit(2)


class Fit(LightningCLI):
    """`jepa-pretrain fit`."""

    def __init__(self, args: list[str]) -> None:
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")  # inside Lightning
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # EMA targets are, always
        warnings.filterwarnings("ignore", message=".*returned a view tensor")  # which nobody changes in place
        warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # data.val is null
        for chatty in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed"):
            logging.getLogger(f"lightning.{chatty}").setLevel(logging.WARNING)  # tips, "Seed set to 0", "GLOBAL_RANK"
        with plain_errors():
            super().__init__(
                Method,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                trainer_defaults=TRAINER_DEFAULTS,
                seed_everything_default=0,
                save_config_callback=Recipe,
                save_config_kwargs={"overwrite": True},
                args=["fit", *args],
            )

    def init_parser(self, **kwargs) -> Parser:
        parser = Parser(**(kwargs | {"formatter_class": Formatter, "prog": "jepa-pretrain", "description": ABOUT}))
        parser.usage = USAGE
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="recipe, a YAML file")
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": LightningCLI.subcommands()["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--init", type=str | None, default=None, help="begin with the weights of this encoder")
        parser.add_argument("--run", type=str | None, default=None, help="run folder (default: runs/RECIPE)")
        parser.link_arguments("model.grid", "data.init_args.grid", apply_on="instantiate")
        parser.add_lightning_class_args(OnlineProbe, "probe")
        parser.add_lightning_class_args(OnlineKNN, "knn")
        parser.add_lightning_class_args(Collapse, "collapse")
        parser.add_lightning_class_args(Guard, "guard")
        parser.add_lightning_class_args(Bar, "bar")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")

    def _parse_ckpt_path(self) -> None:
        """A checkpoint brings weights and counters; unlike Lightning we let it change nothing in the recipe."""

    def _check_checkpoint(self, path: Path) -> None:
        """Refuse a checkpoint that is damaged or could run code, unless told to trust it: `--weights_only false`."""
        config = self.config[self.subcommand]
        if config.weights_only is not False:
            read(path)
            config.weights_only = True

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        folder = Path(config.run or Path("runs") / _recipe_name(config.config))
        config.run = str(folder)
        config.trainer.default_root_dir = str(folder)
        config.ckpt_path = _start(folder, config.ckpt_path)
        if config.ckpt_path:
            self._check_checkpoint(Path(config.ckpt_path))
        if config.trainer.max_steps == 0:
            raise UserError("nothing to train: trainer.max_steps is 0")
        asked = str(config.trainer.strategy).split("_")[0]
        if asked in ("fsdp", "deepspeed"):
            raise UserError(f"trainer.strategy {asked} is not supported: split the weights with fsdp2")

    def instantiate_trainer(self, **kwargs) -> Trainer:
        wanted = self.config_init[self.subcommand].trainer
        if wanted.sync_batchnorm:
            wanted.plugins = [*(wanted.plugins or []), SyncBatchNorm()]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, RuntimeError) as error:  # what Lightning's constructor says of its arguments
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error
        if isinstance(trainer.strategy, DDPStrategy) and trainer.strategy._timeout == default_pg_timeout:
            trainer.strategy._timeout = PATIENCE  # a recipe can give its own; a rank that died is noticed at once
        self.peers = Peers()
        trainer.callbacks += [Starts(), Export(), self.peers]
        trainer.loggers = [CSV(trainer.default_root_dir), *trainer.loggers]
        return trainer

    def fit(self, model: Method, **kwargs) -> None:
        """Train; a Ctrl-C ends with one line that says how to go on."""
        run, init = self.config[self.subcommand].run, self.config[self.subcommand].init
        if init and not kwargs.get("ckpt_path"):
            rank_zero_only(print)("\n".join(begin_from(model, init)), flush=True)
        try:
            self.trainer.fit(model, **kwargs)
        except Stopped as stopped:
            if self.trainer.is_global_zero:
                print(f"{stopped}; go on with the same command and --ckpt_path last", file=sys.stderr)
            sys.exit(stopped.code)
        except (RuntimeError, UserError) as error:
            if self.peers.has_said(error):
                sys.exit(1)
            raise
        if self.trainer.interrupted:
            kept = Path(run) / "checkpoints" / "last.ckpt"
            ending = "go on with the same command and --ckpt_path last" if kept.exists() else "nothing was kept"
            print(f"interrupted; {ending}", file=sys.stderr)
            sys.exit(130)
        if self.trainer.is_global_zero:
            print(f"done: {run}/export holds the encoder; jepa-pretrain report {run} draws the run")


def _start(folder: Path, asked: str | None) -> str | None:
    """The checkpoint to continue from; None to begin anew, which a folder that holds a run refuses."""
    if asked and asked != "last":
        return asked
    last = newest(folder)
    if last and not asked:
        raise UserError(
            f"{folder} already holds a run: continue it with --ckpt_path last, choose another folder with --run, "
            "or remove it"
        )
    if asked and not last:
        # no error, as a job that is requeued expects
        rank_zero_only(print)(f"nothing to go on from in {folder}: starting anew", flush=True)
    return str(last) if last else None


def _recipe_name(paths: list) -> str:
    """Name of the recipe file; two in different folders stay apart: recipes/demo/ijepa.yaml -> demo_ijepa."""
    if not paths:
        return "unnamed"
    path = Path(str(paths[0]))
    folder = path.parent.name
    return path.stem if folder in ("", "recipes") else f"{folder}_{path.stem}"
