"""Recorded behaviour as shards: one episode a sample, its frames a lossless video, what was done and felt beside it.

A sample holds `mp4`, `actions.safetensors` (one row per frame, the last one zeros: nothing follows), and
`truth.safetensors` with `proprio` and `state`, which only evaluations read; `json` says where it came from. So `Shards`
reads them as it reads videos, clips with `Batch.actions`, and `shards verify` and `show` need no word about them.
Small sets are read whole into memory by `read_episodes`.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.clips import videos
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.tensors import ACTIONS, TRUTH, read_actions, read_tensors, write_tensors
from jepa_pretrain.data.writer import Bad, Fields, Plan, TarWriter, finish_shard, finished, shard_name, write_index
from jepa_pretrain.untrusted import parse_json

RATE = 10  # frames per second, by name only: actions and frames go together by number
LONGEST = 1 << 16  # frames of an episode


def write_episodes(
    out: Path, plan: Plan, make: Callable[[int], tuple[Iterable[Episode], list[str]]], per_shard: Callable[[int], None]
) -> None:
    """Writes the shards of a plan that are not there yet, each whole or not at all.

    Args:
        out: The folder.
        plan: Names the division.
        make: The episodes of a shard by its number, a pure function, and the reasons of those it had to drop.
        per_shard: Told the number of every shard that is done, also of those that were there before.
    """
    done = set(finished(out, plan))
    for number in range(plan["shards"]):
        name = shard_name(plan["split"], number)
        if name not in done:
            episodes, dropped = make(number)
            with TarWriter(out / name) as tar:
                for place, episode in enumerate(episodes):
                    tar.add(f"{plan['split']}-{number:06d}-{place:05d}", _members(episode))
            finish_shard(out, tar, plan, [Bad(name=name, reason=reason) for reason in dropped])
        per_shard(number)
    write_index(out)


def _members(episode: Episode) -> Fields:
    from jepa_pretrain.data.encode import encode_exactly  # needs PyAV, which reading a folder's index does not

    done = torch.cat([episode.actions, torch.zeros(1, episode.actions.shape[1])])
    return {
        "mp4": encode_exactly(episode.frames.permute(0, 2, 3, 1).numpy(), RATE),
        ACTIONS: write_tensors(actions=done),
        TRUTH: write_tensors(proprio=episode.proprio, state=episode.state),
        "json": json.dumps(episode.about, sort_keys=True).encode(),
    }


def read_episodes(source: str | list[str], frames: int | None = None, console: Console | None = None) -> list[Episode]:
    """Reads trajectory shards whole into memory.

    Args:
        source: A path, URL, brace or glob pattern, a folder, or a list of these.
        frames: Stop after so many frames; None for all.
        console: Where a progress bar goes.

    Raises:
        UserError: A sample is no episode, or actions of several widths are mixed.
    """
    console = console or Console(quiet=True)
    episodes: list[Episode] = []
    index = open_index(source)
    for entry in track(index.shards, "reading", console=console, disable=not console.is_terminal, transient=True):
        shard = entry.open(index.cache)
        for number in range(len(shard)):
            if frames is not None and sum(len(one.frames) for one in episodes) >= frames:
                return episodes
            episodes.append(_episode(shard, number))
            if episodes[-1].actions.shape[1] != episodes[0].actions.shape[1]:
                raise UserError(f"{source} mixes episodes of different action spaces: give those of one environment")
    return episodes


def _episode(shard: Shard, number: int) -> Episode:
    video, acted, truth = (shard.read(number, one) for one in ("mp4", ACTIONS, TRUTH))
    where = f"{shard.name}/{shard.keys[number]}"
    if video is None or acted is None or truth is None:
        raise UserError(f"{where} is no recorded episode (of `agent collect`): it lacks frames, actions or truth")
    try:
        known, actions = read_tensors(truth), read_actions(acted, 2)
        (taken,) = videos().decode_clips(video, Span(frames=min(len(actions), LONGEST)), [0.0])
    except BrokenPicture as error:
        raise UserError(f"{where}: {error}") from None
    count = len(taken.frames)
    if count != len(actions) or any(key not in known or len(known[key]) != count for key in ("proprio", "state")):
        raise UserError(f"{where}: {count} frames, but actions or states for another number of them")
    return Episode(taken.frames, actions[:-1], known["proprio"], known["state"], _about(shard, number, where))


def _about(shard: Shard, number: int, where: str) -> dict[str, Any]:
    found = parse_json(bytes(shard.read(number, "json") or b"{}").decode("utf-8", "replace"), where)
    return found if isinstance(found, dict) else {}


def windows(lengths: list[int], steps: int) -> Tensor:
    """Where stretches of so many steps can begin, counting the frames of all episodes in a row: (S,) int64.

    Args:
        lengths: Frames of each episode.
        steps: Steps of a window, so `steps + 1` frames.
    """
    starts, first = [], 0
    for length in lengths:
        starts.append(torch.arange(first, first + max(length - steps, 0)))
        first += length
    return torch.cat(starts) if starts else torch.zeros(0, dtype=torch.int64)
