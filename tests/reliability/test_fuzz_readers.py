"""Damaged files by the thousand: a reader gives a right result or one clear refusal, and nothing else ever happens.

Each reader runs in a child process with bounded memory, so that a crash inside a C library is found and not fatal.
Hypothesis draws some of the inputs and makes a failing one small; it is slow, so a plain generator draws the rest.
`JEPA_FUZZ=100 pytest -s tests/reliability/test_fuzz_readers.py` tries a hundred times as many, and says how many;
`JEPA_FUZZ_SEED` makes them others.
"""

import json
import logging
import os
import random
import tarfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from reliability.bounded import EXPECTED, MIB, in_child
from reliability.fuzzed import readers
from small_shards import write_tar

from jepa_pretrain.data.archive import Shard

TIMES = int(os.environ.get("JEPA_FUZZ", "1"))
DRAWN = 30 * min(TIMES, 30)  # by hypothesis, for each reader
START = int(os.environ.get("JEPA_FUZZ_SEED", "0"))
LAST = "last-input"  # the input that a crash happened on lies here, in the test's folder
NAMES = ("tar", "gzip", "index", "picture", "jpeg", "label", "config", "weights", "checkpoint", "run")
VIDEO = pytest.param("video", marks=pytest.mark.skipif(not find_spec("av"), reason="PyAV is not installed"))
NUMBERS = [
    b"\xff" * 4,
    b"\0" * 4,
    b"\x7f\xff\xff\xff",
    b"\0\1",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"0",
    b"77777777",
]
TOKENS = [b"null", b"[]", b"{}", b"true", b'"x"', b"NaN", b"\x1b[2J", b"../", b"&a", b"*l", b",", b"\n", b"[" * 40]
KINDS = ["write", "insert", "cut", "repeat", "end", "flip", "flip", "flip"]
CHANGE = st.tuples(
    st.sampled_from(KINDS),
    st.floats(0, 1),
    st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(NUMBERS + TOKENS)),
)
CHANGES = st.lists(CHANGE, min_size=1, max_size=4)


def changes_of(rng: random.Random) -> list[tuple[str, float, bytes]]:
    """As hypothesis would draw them, a hundred times quicker."""
    pieces = [
        rng.choice(NUMBERS + TOKENS) if rng.random() < 0.3 else rng.randbytes(rng.randint(1, 8)) for _ in range(4)
    ]
    return [(rng.choice(KINDS), rng.random(), piece) for piece in pieces[: rng.choice((1, 1, 2, 4))]]


def damaged(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """A file with some changes."""
    for kind, place, piece in changes:
        at = int(place * len(data))
        if kind == "write":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + len(piece) * 8 :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 600] * 2 + data[at + 600 :]
        elif kind == "end":
            data = data[:at]
        elif data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ piece[0]]) + data[at + 1 :]
    return data


def fuzz(name: str, folder: Path) -> None:
    """Tries damaged files on one reader; leaves the numbers in `counts`."""
    logging.disable()
    warnings.simplefilter("ignore")
    reader, counts = readers(folder)[name], {"tried": 0, "refused": 0}

    def attempt(whole: bytes, changes: list[tuple[str, float, bytes]]) -> None:
        data = damaged(whole, changes)
        (folder / LAST).write_bytes(data)
        counts["tried"] += 1
        try:
            reader.read(data, folder)
        except EXPECTED as error:
            counts["refused"] += 1
            assert 0 < len(str(error)) < 1000 and "\n" not in str(error)

    for whole in reader.whole:
        reader.read(whole, folder)
    before = {path.parent for path in folder.rglob("*")}
    unhurried = settings(max_examples=DRAWN, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(START)(unhurried(given(st.sampled_from(reader.whole), CHANGES)(attempt)))()
    rng = random.Random(START)
    for _ in range(reader.rounds * TIMES):
        attempt(rng.choice(reader.whole), changes_of(rng))
    (folder / "counts").write_text(json.dumps(counts))
    assert {path.parent for path in folder.rglob("*")} <= before | {folder / "cache"}


@pytest.mark.parametrize("name", [*NAMES, VIDEO])
def test_damaged_files_are_refused_or_read(name: str, tmp_path: Path):
    (tmp_path / "in").mkdir()
    outcome = in_child(fuzz, name, tmp_path / "in", seconds=120 + 30 * TIMES)
    assert outcome.error == "", f"{outcome.error}; the last input: {tmp_path / 'in' / LAST}"
    counts = json.loads((tmp_path / "in" / "counts").read_text())
    print(f"\n{name}: {counts}, {outcome.peak / MIB:.0f} MiB")
    assert counts["tried"] > 50 * TIMES and 0 < counts["refused"] < counts["tried"]
    assert outcome.peak < 2000 * MIB  # a picture of just under 100 megapixels
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=160)
PART = st.text("abcxyz019_", min_size=1, max_size=8)


@settings(max_examples=DRAWN, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(NAME, PART, st.binary(max_size=1100)), max_size=6), st.sampled_from([1, 2]))
def test_the_walk_agrees_with_pythons_tarfile(tmp_path_factory, members, kind):
    path = tmp_path_factory.getbasetemp() / "oracle.tar"
    write_tar(
        path, [(f"{number}{key}", {extension: data}) for number, (key, extension, data) in enumerate(members)], kind
    )
    shard = Shard(path)
    with tarfile.open(path) as tar:
        wanted = [tar.extractfile(one).read() for one in tar if not one.name.startswith(".")]
    assert [bytes(next(iter(shard.fields(number).values()))) for number in range(len(shard))] == wanted
