"""Optimisers as recipes: which parameters are decayed, and what follows a schedule."""

from abc import ABC, abstractmethod

import timm.optim
import torch
from torch import nn

from jepa_pretrain.schedules import Schedule


def parameter_groups(module: nn.Module) -> list[dict]:
    """Two groups: matrices and filters are decayed; biases, norms' gains and single tokens are not.

    Parameters without gradients are left out. A tensor counts as a matrix when two or more of its dimensions are
    larger than one, so that `(1, 1, D)` mask tokens fall among the undecayed.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trained if sum(n > 1 for n in p.shape) >= 2]
    chosen = {id(p) for p in decayed}
    return [
        {"params": decayed, "decayed": True},
        {"params": [p for p in trained if id(p) not in chosen], "decayed": False, "weight_decay": 0.0},
    ]


class OptimizerRecipe(ABC):
    """Builds a torch optimiser and moves its learning rate and weight decay along their schedules.

    Args:
        lr: learning rate over progress.
        weight_decay: weight decay over progress, for the decayed group alone.
    """

    def __init__(self, lr: Schedule, weight_decay: Schedule) -> None:
        self.lr, self.weight_decay = lr, weight_decay

    @abstractmethod
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over `module`'s trained parameters."""

    def move(self, optimizer: torch.optim.Optimizer, progress: float) -> None:
        """Set every group's values for this progress."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr(progress)
            if group["decayed"]:
                group["weight_decay"] = self.weight_decay(progress)


class AdamW(OptimizerRecipe):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        lr: learning rate over progress.
        weight_decay: weight decay over progress; biases and norms have none.
        betas: decay of the two moment estimates.
    """

    def __init__(self, lr: Schedule, weight_decay: Schedule, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__(lr, weight_decay)
        self.betas = betas

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameter_groups(module), lr=self.lr(0.0), weight_decay=self.weight_decay(0.0), betas=self.betas
        )


class LARS(OptimizerRecipe):
    """Momentum SGD with a step size per layer (You et al. 2017); biases and norms take plain steps.

    Args:
        lr: learning rate over progress.
        weight_decay: weight decay over progress; biases and norms have none.
        momentum: momentum of the update.
        eta: trust coefficient.
    """

    def __init__(self, lr: Schedule, weight_decay: Schedule, momentum: float = 0.9, eta: float = 0.001) -> None:
        super().__init__(lr, weight_decay)
        self.momentum, self.eta = momentum, eta

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        return timm.optim.Lars(
            parameter_groups(module),
            lr=self.lr(0.0),
            weight_decay=self.weight_decay(0.0),
            momentum=self.momentum,
            trust_coeff=self.eta,
        )


class SGD(OptimizerRecipe):
    """Momentum SGD.

    Args:
        lr: learning rate over progress.
        weight_decay: weight decay over progress; biases and norms have none.
        momentum: momentum of the update.
    """

    def __init__(self, lr: Schedule, weight_decay: Schedule, momentum: float = 0.9) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = momentum

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(module)
        return torch.optim.SGD(groups, lr=self.lr(0.0), weight_decay=self.weight_decay(0.0), momentum=self.momentum)
