"""`jepa-pretrain agent collect`: behaviour in an environment, recorded as trajectory shards."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jepa_pretrain.agent.behaviours import behaviour
from jepa_pretrain.agent.environments import Environments, described
from jepa_pretrain.agent.rollouts import play
from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.data.trajectories import write_episodes
from jepa_pretrain.data.writer import Plan, read_parts
from jepa_pretrain.seeds import seed_of

SHARD = 5000  # frames
ATTEMPTS = 10  # dropped episodes for each that is kept, past which an environment counts as broken
DEFAULT = ("agent.position", "target.position")  # what stable-worldmodel's TwoRoom varies by itself


@dataclass(frozen=True)
class Recording:
    """All that decides what is recorded.

    Args:
        env: Gymnasium id.
        behaviours: Who acts; each has a share of the shards.
        frames: In all.
        size: Height and width of the pictures.
        steps: Of an episode, at most.
        seed: Names everything that is drawn.
        options: Reset options.
    """

    env: str
    behaviours: tuple[str, ...]
    frames: int
    size: int
    steps: int
    seed: int
    options: dict[str, list[str]]

    @property
    def shards(self) -> int:
        """The same number for every behaviour."""
        return len(self.behaviours) * max(-(-self.frames // (SHARD * len(self.behaviours))), 1)

    def budget(self, shard: int) -> int:
        """Frames of one shard."""
        return self.frames // self.shards + (shard < self.frames % self.shards)


def collect(
    env: str,
    out: str,
    behaviour: str = "random",
    frames: int = 10_000,
    size: int = 64,
    seed: int = 0,
    steps: int = 100,
    variation: list[str] | None = None,
    parallel: int = 16,
    split: str = "train",
) -> None:
    """Record behaviour in an environment: frames, actions and states as shards; the same again goes on.

    Args:
        env: Gymnasium id, such as swm/TwoRoom-v1 or CartPole-v1.
        out: Folder for the shards and their index.
        behaviour: random; sticky - random, held for ten steps on average; expert, explorer and straight where the
            environment has these. Several joined by + have equal shares of the frames, such as expert+sticky.
        frames: To record, in all.
        size: Height and width of the pictures.
        seed: Other seeds give other episodes.
        steps: Of an episode, at most.
        variation: What stable-worldmodel's environments vary beside positions, such as door.position.
        parallel: Episodes played at a time; it changes nothing that is recorded.
        split: First part of the shards' names.
    """
    if frames < 2 or size < 8 or steps < 1 or parallel < 1:
        raise UserError(f"impossible recording: {frames} frames of {size} pixels, {steps} steps, {parallel} at a time")
    options = {"variation": [*DEFAULT, *variation]} if variation else {}
    plan = Recording(env, tuple(behaviour.split("+")), frames, size, steps, seed, options)
    console = Console(highlight=False, soft_wrap=True)
    work = _Work(plan, Environments(env, min(parallel, 1 + frames // 2), size), console)
    folder, name = Path(out), f"{plan}"
    division = Plan(split=split, plan=name, shards=plan.shards, classes=[])
    folder.mkdir(parents=True, exist_ok=True)
    with work.bar:
        write_episodes(folder, division, work.shard, work.finished)
    work.environments.close()
    parts = [part for part in read_parts(folder) if part["split"] == split]
    episodes, dropped = sum(part["samples"] for part in parts), [bad for part in parts for bad in part["bad"]]
    console.print(f"{frames} frames in {episodes} episodes of {env} ({behaviour}), in {out}")
    if dropped:
        console.print(f"{len(dropped)} episodes were dropped because {env} threw; the first: {dropped[0]['reason']}")


class _Work:
    """The recording under way, with its progress bar."""

    def __init__(self, plan: Recording, environments: Environments, console: Console) -> None:
        self.plan, self.environments = plan, environments
        self.actors = [behaviour(one, plan.env, environments.actions) for one in plan.behaviours]
        columns = (
            TextColumn("recording"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("recording", total=plan.frames)

    def finished(self, shard: int) -> None:
        """Moves the bar to the end of a shard."""
        self.bar.update(self.task, completed=sum(self.plan.budget(one) for one in range(shard + 1)))

    def shard(self, number: int) -> tuple[list[Episode], list[str]]:
        """The episodes of one shard, cut to its budget of frames, and why others were dropped."""
        kept, dropped, room = [], [], self.plan.budget(number)
        for seed, played in self._played(number):
            if isinstance(played, str):
                dropped.append(f"seed {seed}: {played}")
                if len(dropped) > ATTEMPTS * (1 + len(kept)):
                    raise UserError(f"{self.plan.env} throws in nearly every episode; the last time: {played}")
                continue
            cut = min(len(played.frames), room)
            cut -= room - cut == 1 and cut > 2  # a single frame that is left would be no episode
            kept.append(_cut(played, cut, seed))
            room -= cut
            self.bar.advance(self.task, cut)
            if room < 2:
                return kept, dropped
        raise AssertionError("there is always another episode")

    def _played(self, shard: int) -> Iterator[tuple[int, Episode | str]]:
        """One episode after the other with its seed, however many are played at a time."""
        turn = shard % len(self.actors)
        known = {"env": self.plan.env, "behaviour": self.plan.behaviours[turn], "options": self.plan.options}
        known["actions"] = described(self.environments.actions)
        for first in itertools.count(0, self.environments.count):
            seeds = [seed_of(self.plan.seed, shard, first + row) % 2**31 for row in range(self.environments.count)]
            options = [dict(self.plan.options) for _ in seeds] if self.plan.options else None
            played = play(self.environments, self.actors[turn], seeds, self.plan.steps, options)
            for seed, one in zip(seeds, played, strict=True):
                yield seed, one if isinstance(one, str) else one._replace(about=known | one.about)


def _cut(episode: Episode, frames: int, seed: int) -> Episode:
    """The beginning of an episode."""
    about = episode.about | {"seed": seed, "reached": episode.about["reached"] and frames == len(episode.frames)}
    return Episode(episode.frames[:frames], episode.actions[: frames - 1], episode.proprio[:frames],
                   episode.state[:frames], about)  # fmt: skip
