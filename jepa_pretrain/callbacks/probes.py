"""Online probes: what the frozen features would be worth, watched while they are trained.

Both read the detached features that a method returns from its training step, so they never change the training. Those
are the features of all ranks, so that every rank holds the same probe, and a checkpoint of one rank's serves all.
"""

from collections import deque

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain import distributed
from jepa_pretrain.evals.vote import weighted_vote


def _labelled(features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, D) and labels (B,) of the samples that have a label and whose features are finite."""
    features = features.float()
    known = (label >= 0) & features.isfinite().all(dim=1)
    return features[known], label[known]


class OnlineProbe(lightning.Callback):
    """Trains a linear classifier beside the method and logs `probe/linear_top1` at every validation.

    Args:
        lr: learning rate of its AdamW optimiser.
    """

    def __init__(self, lr: float = 3e-3) -> None:
        self.lr = lr
        self.head: nn.Module | None = None
        self._waiting: dict | None = None

    def on_fit_start(self, trainer, module) -> None:
        classes = len(trainer.datamodule.classes)
        if classes < 2:
            return
        width = module.exported.width
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, classes)).to(module.device)
        nn.init.zeros_(self.head[1].weight)  # the same on every rank
        nn.init.zeros_(self.head[1].bias)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=self.lr, weight_decay=1e-4)
        self._restore()

    @torch.enable_grad()
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if self.head is None:
            return
        features, label = _labelled(outputs["features"], outputs["label"])
        if len(label) < 2:
            return
        self.head.train()
        loss = F.cross_entropy(self.head(features.detach()), label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def on_validation_epoch_start(self, trainer, module) -> None:
        self.right, self.seen = torch.zeros((), device=module.device), torch.zeros((), device=module.device)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if self.head is None:
            return
        features, label = _labelled(outputs["features"], batch.label)
        if len(label):
            self.right += (self.head.eval()(features).argmax(1) == label).sum()
            self.seen += len(label)

    def on_validation_epoch_end(self, trainer, module) -> None:
        if self.head is not None and not trainer.sanity_checking:
            right, seen = distributed.total(self.right), distributed.total(self.seen)
            if seen > 0:
                module.log("probe/linear_top1", 100.0 * right / seen, sync_dist=True)

    def state_dict(self) -> dict:
        if self.head is None:
            return {}
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        self._waiting = state_dict or None
        self._restore()

    def _restore(self) -> None:
        """Take over a checkpoint's state once the head is there: strategies load before or after `on_fit_start`."""
        if self._waiting and self.head is not None:
            self.head.load_state_dict(self._waiting["head"])
            self.optimizer.load_state_dict(self._waiting["optimizer"])
            self._waiting = None


class OnlineKNN(lightning.Callback):
    """Weighted k-NN against the latest training features; logs `probe/knn_top1` at every validation.

    Args:
        bank: training features kept, of all ranks together; under augmentation, so a lower bound of the real figure.
        k: neighbours that vote.
        temperature: of the vote's weights.
    """

    def __init__(self, bank: int = 4096, k: int = 20, temperature: float = 0.07) -> None:
        self.size, self.k, self.temperature = bank, k, temperature
        self.bank: deque[tuple[Tensor, Tensor]] = deque()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        features, label = _labelled(outputs["features"], outputs["label"])
        if len(label):
            self.bank.append((F.normalize(features, dim=1), label))
        while sum(len(y) for _, y in self.bank) - len(self.bank[0][1] if self.bank else ()) >= self.size:
            self.bank.popleft()

    def on_validation_epoch_start(self, trainer, module) -> None:
        self.right, self.seen = torch.zeros((), device=module.device), torch.zeros((), device=module.device)
        self.ready = len(trainer.datamodule.classes) > 1 and len(self.bank) > 0
        if self.ready:
            self.keys, self.values = (torch.cat(part) for part in zip(*self.bank, strict=True))

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        features, label = _labelled(outputs["features"], batch.label)
        if not self.ready or not len(label):
            return
        classes = len(trainer.datamodule.classes)
        vote = weighted_vote(features, self.keys, self.values, classes, min(self.k, len(self.keys)), self.temperature)
        self.right += (vote.argmax(1) == label).sum()
        self.seen += len(label)

    def on_validation_epoch_end(self, trainer, module) -> None:
        right, seen = distributed.total(self.right), distributed.total(self.seen)
        if seen > 0:
            module.log("probe/knn_top1", 100.0 * right / seen, sync_dist=True)

    def state_dict(self) -> dict:
        return {"bank": list(self.bank)}

    def load_state_dict(self, state_dict: dict) -> None:
        self.bank = deque(state_dict["bank"])
