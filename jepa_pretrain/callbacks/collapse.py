"""Says in plain words when the features stop using their dimensions."""

from collections import deque

import lightning
import torch
from torch import Tensor

from jepa_pretrain.callbacks.alarms import raise_alarm
from jepa_pretrain.evals.rank import dimension_std, effective_rank


class Collapse(lightning.Callback):
    """Logs `train/rank` (effective rank) and `train/std` of the latest features; an alarm when they collapse.

    The loss of a joint embedding is only a proxy: it falls when everything collapses. These two numbers do not.

    Args:
        every: steps between two measurements.
        samples: number of the latest features that are measured, of all ranks together.
        rank_floor: effective rank below which features count as collapsed.
        std_floor: mean deviation, relative to the features' size, below which features count as constant.
        patience: measurements in a row below a floor before the alarm.
    """

    def __init__(
        self, every: int = 50, samples: int = 1024, rank_floor: float = 2.0, std_floor: float = 0.01, patience: int = 3
    ) -> None:
        self.every, self.samples = every, samples
        self.rank_floor, self.std_floor, self.patience = rank_floor, std_floor, patience
        self.latest: deque[Tensor] = deque()
        self.below = self.measured_at = 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.latest.append(outputs["features"].detach())
        while sum(map(len, self.latest)) - len(self.latest[0]) >= self.samples:
            self.latest.popleft()
        step = trainer.global_step
        if step % self.every == 0 and step != self.measured_at and sum(map(len, self.latest)) > 1:
            self.measured_at = step  # once, however many batches are accumulated in a step
            self._measure(trainer, module)

    def _measure(self, trainer, module) -> None:
        features = torch.cat(list(self.latest)).float()
        features = features[features.isfinite().all(dim=1)]  # a batch that is no number says nothing of the others
        if len(features) < 2:
            return
        rank, std = effective_rank(features), dimension_std(features).mean()
        size = features.square().mean().sqrt().clamp_min(1e-12)
        found = {"train/rank": rank, "train/std": std}
        module.log_dict(found, logger=False, rank_zero_only=True)
        for logger in trainer.loggers:  # not through Lightning, which would repeat the values until the next ones
            logger.log_metrics({name: float(value) for name, value in found.items()}, trainer.global_step - 1)
        low = bool(rank < self.rank_floor) or bool(std / size < self.std_floor) or not bool(rank.isfinite())
        self.below = self.below + 1 if low else 0
        if self.below == self.patience:
            words = (
                f"the features have collapsed: effective rank {rank:.1f} of "
                f"{features.shape[1]}, deviation {std / size:.1%} of their size. A falling loss means nothing now. "
                "Usual cures: a slower or later learning rate, a higher EMA momentum, a variance term (regularizer)."
            )
            raise_alarm(trainer.default_root_dir, trainer.global_step - 1, "collapse", words, float(rank))

    def state_dict(self) -> dict:
        return {"latest": list(self.latest), "below": self.below, "measured_at": self.measured_at}

    def load_state_dict(self, state_dict: dict) -> None:
        self.latest, self.below = deque(state_dict["latest"]), state_dict["below"]
        self.measured_at = state_dict["measured_at"]
