"""Runs a function as several ranks, as torchrun would start them, by forking a server that has imported all."""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["jepa_pretrain.training", "ranks"])
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


def _main(function: Callable, rank: int, world: int, port: int, args: tuple, pipe) -> None:
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(torchrun_environment(rank, world, port))
    try:
        result = function(rank, world, *args)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        pipe.send((False, traceback.format_exc()))
        raise
    file = pipe.recv()
    torch.save(result, file)
    pipe.send((True, None))


def together(folder: str, function: Callable, world: int, *args: Any) -> list[Any]:
    """What `function(rank, world, *args)` returns, for each rank."""
    port, started = free_port(), []
    for rank in range(world):
        here, there = SERVER.Pipe()
        process = SERVER.Process(target=_main, args=(function, rank, world, port, args, there), daemon=False)
        process.start()
        there.close()
        here.send(f"{folder}/rank{rank}.pt")
        started.append((process, here))
    try:
        answers = [pipe.recv() if pipe.poll(PATIENCE) else (False, "no answer") for _, pipe in started]
    except EOFError:
        answers = [(False, "a rank ended without an answer")]
    finally:
        for process, _ in started:
            process.join(1)
            process.kill()
    failed = [words for fine, words in answers if not fine]
    assert not failed, failed[0]
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=False) for rank in range(world)]
