"""A run that was killed and continued ends as the one that was never stopped: bit for bit."""

import pytest
from reliability.runs import arguments, at_batch, differences, kill, run

CASES = [  # recipe, gradient accumulation, data workers of the killed run, batches at which it is killed
    ("ijepa", 1, 0, (11, 17)),
    ("ijepa", 2, 1, (9, 25)),
    ("vicreg", 1, 2, (5, 13)),
    ("vicreg", 2, 0, (14, 31)),
]


@pytest.fixture(scope="module")
def undisturbed(demo_shards, tmp_path_factory):
    """Folder of a run that was never stopped, one per recipe and accumulation."""
    made = {}

    def get(recipe: str, accumulate: int):
        if (recipe, accumulate) not in made:
            folder = tmp_path_factory.mktemp(f"{recipe}{accumulate}")
            more = ["--trainer.accumulate_grad_batches", str(accumulate)]
            assert run(arguments(recipe, folder / "run", demo_shards, *more), folder / "log") == 0
            made[recipe, accumulate] = folder / "run"
        return made[recipe, accumulate]

    return get


@pytest.mark.parametrize(("recipe", "accumulate", "workers", "kills"), CASES)
def test_killed_twice_and_continued(undisturbed, demo_shards, tmp_path, recipe, accumulate, workers, kills):
    more = ["--trainer.accumulate_grad_batches", str(accumulate), "--data.workers", str(workers)]
    command = arguments(recipe, tmp_path / "run", demo_shards, *more, "--ckpt_path", "last")
    log = tmp_path / "log"
    for number in kills:
        assert run(command, log, at_batch(number, kill)) == -9
        assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists(), log.read_text()
    assert run(command, log) == 0, log.read_text()
    assert differences(undisturbed(recipe, accumulate), tmp_path / "run") == []
