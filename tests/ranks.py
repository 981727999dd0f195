"""Runs a function as several ranks, as torchrun would start them, by forking a server that has imported all."""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["small_run", "ranks", "jepa_pretrain.training", "torch._dynamo"])
PATIENCE = 120  # seconds, for a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun_environment(rank: int, world: int, port: int) -> dict[str, str]:
    names = dict(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world,
        LOCAL_WORLD_SIZE=world, GROUP_RANK=0, TORCHELASTIC_RUN_ID="test", OMP_NUM_THREADS=1,
    )  # fmt: skip
    return {name: str(value) for name, value in names.items()}


def start(function: Callable, world: int, *args: Any) -> list[multiprocessing.Process]:
    """`function(rank, world, *args)` in as many processes, which find each other as torchrun's do."""
    port = free_port()
    processes = [SERVER.Process(target=_main, args=(function, rank, world, port, args)) for rank in range(world)]
    for process in processes:
        process.start()
    return processes


def _main(function: Callable, rank: int, world: int, port: int, args: tuple) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in any run
    if world > 1:
        os.environ.update(torchrun_environment(rank, world, port))
    function(rank, world, *args)


def end(processes: list[multiprocessing.Process], patience: float = PATIENCE) -> list[int | None]:
    """Exit codes, minus the signal's number where one ended it; None for those that had to be killed in the end."""
    last = time.monotonic() + patience
    for process in processes:
        process.join(max(last - time.monotonic(), 0.0))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def _keep(rank: int, world: int, function: Callable, folder: str, args: tuple) -> None:
    try:
        torch.save(function(rank, world, *args), f"{folder}/rank{rank}.pt")
    except BaseException:
        Path(f"{folder}/rank{rank}.txt").write_text(traceback.format_exc())
        raise


def together(folder: str, function: Callable, world: int, *args: Any) -> list[Any]:
    """What `function(rank, world, *args)` returns, for each rank."""
    codes = end(start(_keep, world, function, folder, args))
    words = [path.read_text() for path in sorted(Path(folder).glob("rank*.txt"))]
    assert codes == [0] * world, f"{codes}\n" + "\n".join(words)
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=False) for rank in range(world)]
