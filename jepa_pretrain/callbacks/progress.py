"""What a person sees while a run trains: one bar in a terminal, one line now and then elsewhere."""

import sys
import time

from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar(ProgressBar):
    """Step, images per second, time left, loss and effective rank; logs `train/images_per_second`.

    Args:
        every: seconds between two lines where the output is not a terminal.
        smoothing: share of the past in the running mean of the speed, in [0, 1).
    """

    def __init__(self, every: float = 20.0, smoothing: float = 0.95) -> None:
        super().__init__()
        self.every, self.smoothing = every, smoothing
        self.enabled, self.bar, self.speed = True, None, 0.0

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def on_train_start(self, trainer, module) -> None:
        self.total = module.total_steps()
        self.last_step_at = self.last_line_at = time.monotonic()
        if not self.enabled:
            return
        print(f"{trainer.default_root_dir}: training from step {trainer.global_step} to {self.total}", flush=True)
        if sys.stdout.isatty():
            columns = (
                TextColumn("{task.completed:>6.0f}/{task.total:.0f}"), BarColumn(bar_width=None),
                TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            self.bar = Progress(*columns, console=Console())
            self.task = self.bar.add_task("", total=self.total, completed=trainer.global_step)
            self.bar.start()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        now = time.monotonic()
        speed = len(batch.label) * trainer.world_size / max(now - self.last_step_at, 1e-9)
        self.last_step_at = now
        self.speed = speed if self.speed == 0.0 else self.smoothing * self.speed + (1 - self.smoothing) * speed
        if trainer.global_step % trainer.log_every_n_steps == 0:
            module.log("train/images_per_second", self.speed, rank_zero_only=True)
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step, description=self._words(trainer))
        elif self.enabled and now - self.last_line_at > self.every:
            self.last_line_at = now
            left = (self.total - trainer.global_step) * len(batch.label) * trainer.world_size / self.speed
            left *= trainer.accumulate_grad_batches
            step = f"step {trainer.global_step}/{self.total}"
            print(f"{step}  {self._words(trainer)}  {left / 60:.1f} min left", flush=True)

    def on_validation_end(self, trainer, module) -> None:
        self.last_step_at = time.monotonic()  # the pause is no training time
        found = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("probe/")}
        if self.enabled and found and not trainer.sanity_checking:
            words = "  ".join(f"{k.removeprefix('probe/')} {float(v):.1f}" for k, v in sorted(found.items()))
            (self.bar.console.print if self.bar else print)(f"step {trainer.global_step}: {words}")

    def _words(self, trainer) -> str:
        metrics = trainer.callback_metrics
        parts = [f"{self.speed:.0f} img/s"]
        if "train/loss" in metrics:
            parts.append(f"loss {float(metrics['train/loss']):.3f}")
        if "train/rank" in metrics:
            parts.append(f"rank {float(metrics['train/rank']):.1f}")
        return "  ".join(parts)

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer, module) -> None:
        self._stop()

    def on_exception(self, trainer, module, exception) -> None:
        self._stop()
