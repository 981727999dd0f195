"""Stretches of recorded episodes that lie in memory, as batches: what `agent train` reads."""

from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_pretrain.contracts import Batch, Episode, UserError
from jepa_pretrain.data.order import permutation
from jepa_pretrain.data.trajectories import windows


class Windows:
    """Every stretch of `steps` steps that begins anywhere in any episode, in a new order in every pass.

    Args:
        episodes: The recordings.
        seen: What is known at every frame of all episodes in a row: frames, or observations of several,
            `(S, C, H, W)` uint8, or features `(S, F)` float of a frozen encoder.
        block: Features are taken at every so-manieth frame, since nothing in between is read; frames are all taken.
        steps: Length of a stretch, a multiple of the block.
        batch_size: Stretches per batch; what does not fill one is left for another pass.
        seed: Names the order.

    Raises:
        UserError: No episode, or too few, are as long.
    """

    def __init__(
        self, episodes: list[Episode], seen: Tensor, block: int, steps: int, batch_size: int, seed: int
    ) -> None:
        lengths = [len(one.frames) for one in episodes]
        self.seen, self.steps, self.batch_size, self.seed, self.epoch = seen, steps, batch_size, seed, 0
        self.every = block if seen.is_floating_point() else 1
        width = episodes[0].actions.shape[1] if episodes else 0
        self.actions = torch.cat([torch.cat([one.actions, torch.zeros(1, width)]) for one in episodes])  # (S, a)
        self.starts = windows(lengths, steps)
        if len(self.starts) < batch_size:
            raise UserError(
                f"the recordings hold {len(self.starts)} stretches of {steps} steps, a batch needs {batch_size}: "
                "record more frames or longer episodes, or lower the batch size"
            )

    def __len__(self) -> int:
        return len(self.starts) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        order = torch.from_numpy(permutation(len(self.starts), self.seed, self.epoch))
        self.epoch += 1
        for number in range(len(self)):
            yield self.batch(self.starts[order[number * self.batch_size : (number + 1) * self.batch_size]])

    def batch(self, starts: Tensor) -> Batch:
        """The stretches that begin at the frames `(B,)`."""
        at = starts[:, None] + torch.arange(0, self.steps + 1, self.every)  # (B, T)
        seen = self.seen[at]
        view = seen.transpose(1, 2)[..., None, None] if seen.ndim == 3 else seen.transpose(1, 2)  # (B, C, T, H, W)
        actions = self.actions[starts[:, None] + torch.arange(self.steps)]  # (B, steps, a)
        label = torch.full((len(starts),), -1)
        return Batch([view], [], label, [str(start) for start in starts.tolist()], actions)
