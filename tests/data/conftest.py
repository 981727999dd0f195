"""What the tests of the data side share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_shards import numbered, write_tar


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., str]:
    """Makes shards of given sizes and returns their pattern."""

    def make(*sizes: int) -> str:
        start = 0
        for shard, size in enumerate(sizes):
            write_tar(tmp_path / f"train-{shard:06d}.tar", numbered(start, size))
            start += size
        return str(tmp_path / "train-*.tar")

    return make
