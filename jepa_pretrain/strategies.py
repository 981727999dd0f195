"""How a run is spread over processes: what Lightning's strategies lack here."""

from datetime import timedelta

import lightning
from lightning.pytorch.plugins import TorchSyncBatchNorm
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry

from jepa_pretrain.models.batchnorm import synchronise

PATIENCE = timedelta(minutes=10)  # how long a rank waits for another before the run ends; Lightning's is 30 minutes


class SyncBatchNorm(TorchSyncBatchNorm):
    """`trainer.sync_batchnorm: true`, which works on CPUs as well and keeps timm's activations."""

    def apply(self, model: lightning.LightningModule) -> lightning.LightningModule:
        return synchronise(model, model.trainer.strategy.root_device.type)

    def revert(self, model: lightning.LightningModule) -> lightning.LightningModule:
        return model  # one process or evaluation: they do what plain ones do


class FSDP2(ModelParallelStrategy):
    """Weights, gradients and optimiser state split over all ranks; checkpoints stay one whole file.

    Args:
        timeout: how long a rank waits for another before the run ends.
    """

    def __init__(self, timeout: timedelta = PATIENCE) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        if self._layer_sync is not None:
            self._layer_sync.apply(self.lightning_module)  # before the weights are split


StrategyRegistry.register("fsdp2", FSDP2, description="FSDP2: weights split over all ranks")
