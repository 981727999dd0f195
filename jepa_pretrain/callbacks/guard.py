"""Keeps numbers that are not finite out of the weights, writes down where they came from, and tells spikes."""

import json
import math
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import lightning
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.distributed.tensor import DTensor

from jepa_pretrain import distributed
from jepa_pretrain.callbacks.alarms import drop_alarms, plain, raise_alarm
from jepa_pretrain.callbacks.spikes import Course
from jepa_pretrain.contracts import UserError

RECENT = 1000  # steps over which skipped ones are counted against `max_skipped`


class Guard(lightning.Callback):
    """Skips every optimiser step whose loss or gradient is not finite; counts them as `train/skipped`.

    A skipped step leaves no trace in the module: weights, optimiser and EMA stay, buffers (the running statistics of
    batch norm) are put back. All ranks skip it together. The step number still counts, so that schedules and the end
    of the run stay. Each one is written to `RUN/faults/step-00000123.json` (steps as in `metrics.csv`);
    `jepa_pretrain.replay.replay` makes its batches again from that file. A resumed run keeps these files, and writes
    those of steps that it runs again anew. It costs one synchronisation with the device for each optimiser step.

    Where fp16 is used, an infinite gradient under a finite loss is how its loss scale is found: such a step is skipped
    but not counted, as long as the scale is 1 or more.

    Args:
        max_skipped: steps among the latest 1,000 that may be skipped; one more stops the run.
        spike: how far above its recent median the loss has to be for an alarm, in robust standard deviations; three
            steps in a row, or one that is five times as far.
    """

    def __init__(self, max_skipped: int = 10, spike: float = 10.0) -> None:
        if max_skipped < 0 or spike <= 0:
            raise UserError(f"guard: max_skipped ({max_skipped}) is 0 or more and spike ({spike}) above 0")
        self.max_skipped = max_skipped
        self.course = Course(spike)
        self.skipped, self.recent = 0, deque()  # how many in all; the latest ones' steps
        self._clear()

    def _clear(self) -> None:
        """Forget the optimiser step that has ended."""
        self.losses: list[Tensor] = []  # of each micro-batch of the running step, ()
        self.batches: list[dict] = []  # where in the data each came from

    def on_train_start(self, trainer, module) -> None:
        drop_alarms(trainer.default_root_dir, trainer.global_step)
        self.buffers = [buffer.clone() for buffer in module.buffers()]
        self._clear()

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if not self.batches:  # the first micro-batch of an optimiser step
            copy(self.buffers, module.buffers())
        epoch, first = trainer.train_dataloader.latest
        self.batches.append({"epoch": epoch, "first": first, "keys": batch.key})

    def on_before_backward(self, trainer, module, loss: Tensor) -> None:
        share = trainer.accumulate_grad_batches  # Lightning has divided by it
        self.losses.append(share * loss.detach().float() / _scale(trainer, loss.device))

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        """After backward and the average over ranks, before clipping and the update."""
        bad, loss, norm = agree(torch.stack(self.losses).mean(), gradient_norm(optimizer))
        if bad:
            self._skip(trainer, module, loss, norm)
        else:
            self._watch(trainer, loss)
        self._clear()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        module.log("train/skipped", float(self.skipped), rank_zero_only=True)

    def _skip(self, trainer, module, loss: float, norm: float) -> None:
        module.zero_grad(set_to_none=True)  # optimisers leave parameters without a gradient alone
        copy(list(module.buffers()), self.buffers)
        if math.isfinite(loss) and _scaled(trainer) and trainer.precision_plugin.scaler.get_scale() >= 1:
            return
        step = trainer.global_step
        self.skipped += 1
        self.recent.append(step)
        while self.recent[0] <= step - RECENT:
            self.recent.popleft()
        path = self._write(trainer, module, loss, norm)
        words = f"loss {loss:.4g}, gradient norm {norm:.4g}: the step was skipped; faults/{path.name} names its batches"
        raise_alarm(trainer.default_root_dir, step, "skipped", words, loss)
        if len(self.recent) > self.max_skipped:
            raise UserError(
                f"{len(self.recent)} of the latest {RECENT} steps had a loss or gradient that is not finite and were "
                f"skipped, more than guard.max_skipped = {self.max_skipped} allows; the latest: {path}. To see which "
                "operation does it: --ckpt_path last --trainer.detect_anomaly true. Usual cures: a lower learning "
                "rate, a longer warm-up, --trainer.gradient_clip_val 1, --trainer.precision 32-true"
            )

    def _write(self, trainer, module, loss: float, norm: float) -> Path:
        """What is needed to make the step's batches again: of each rank, those of all its micro-batches."""
        found = zip(self.losses, self.batches, strict=True)
        mine = [{"loss": plain(float(loss)), **batch} for loss, batch in found]
        ranks = distributed.gather_objects(mine)
        path = Path(trainer.default_root_dir) / "faults" / f"step-{trainer.global_step:08d}.json"
        if trainer.is_global_zero:
            fault = {
                "step": trainer.global_step,
                "loss": plain(loss),
                "gradient_norm": plain(norm),
                "grid": list(module.grid),
                "data": {k: v for k, v in trainer.datamodule.provenance().items() if k in ("seed", "digest")},
                "ranks": ranks,
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(fault, indent=1) + "\n")
        return path

    def _watch(self, trainer, loss: float) -> None:
        height = self.course.add(loss)
        if height is not None:
            words = (
                f"the loss has jumped to {loss:.4g}, {height:.0f} deviations above its recent median. If it does not "
                "come back: go on from a checkpoint with a lower learning rate, a longer warm-up or "
                "--trainer.gradient_clip_val 1"
            )
            raise_alarm(trainer.default_root_dir, trainer.global_step, "spike", words, loss)

    def state_dict(self) -> dict:
        return {"skipped": self.skipped, "recent": list(self.recent), "course": self.course.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        self.skipped, self.recent = state_dict["skipped"], deque(state_dict["recent"])
        self.course.load_state_dict(state_dict["course"])


@torch.no_grad()
def copy(to: list[Tensor], source: Iterable[Tensor]) -> None:
    """Tensors into others of the same shapes."""
    if to:
        torch._foreach_copy_(to, list(source))


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Norm of all gradients together, (); of all shards where they are sharded."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).float()


def agree(loss: Tensor, norm: Tensor) -> tuple[bool, float, float]:
    """Whether loss or gradient of any rank is not finite, the mean loss over ranks, and this rank's norm.

    Args:
        loss: this rank's, ().
        norm: of the gradient, ().
    """
    bad = 1.0 - (loss.isfinite() & norm.isfinite()).float()
    bad, loss = distributed.total(torch.stack([bad, loss]))
    bad, loss, norm = torch.stack([bad, loss, norm.to(loss.device)]).tolist()  # the one synchronisation
    return bad > 0, loss / distributed.world_size(), norm


def _scaled(trainer) -> bool:
    """Whether the loss is scaled for fp16."""
    return isinstance(trainer.precision_plugin, MixedPrecision) and trainer.precision_plugin.scaler is not None


def _scale(trainer, device) -> Tensor:
    """What the loss was multiplied by for fp16, ()."""
    one = torch.ones((), device=device)
    return trainer.precision_plugin.scaler.scale(one) if _scaled(trainer) else one
