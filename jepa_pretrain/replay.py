"""Makes the batches of a skipped step again, from the file that the guard wrote about it."""

import json
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from jepa_pretrain.contracts import Batch, Grid, UserError
from jepa_pretrain.data.order import Draw
from jepa_pretrain.data.shards import Shards


def replay(fault: str | Path, rank: int = 0) -> list[Batch]:
    """The batches of a skipped step: the same pictures, augmentations and masks, one for each micro-batch.

    They follow from the run's `config.yaml` and the fault file alone, so that the run need not be repeated:

        from jepa_pretrain.replay import replay
        batch, = replay("runs/NAME/faults/step-00000123.json")

    Shards named by relative paths are looked for from the folder where one is, as in training.

    Args:
        fault: `RUN/faults/step-*.json`, inside its run folder.
        rank: Whose batches.

    Returns:
        Batches as the method was given them, on the CPU.

    Raises:
        UserError: The file is none of a fault, there is no such rank, or the shards or the recipe have changed since.
    """
    fault = Path(fault)
    try:
        found = json.loads(fault.read_text())
        grid, digest, ranks = Grid(*found["grid"]), found["data"]["digest"], found["ranks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{fault} is no fault file of a run ({error!r})") from None
    if not 0 <= rank < len(ranks):
        raise UserError(f"rank {rank} is not one of the {len(ranks)} of {fault}")
    data = _data(fault.absolute().parent.parent / "config.yaml")
    data.grid, data.batch_size = grid, len(ranks[rank][0]["keys"])
    if data.index().digest != digest:
        raise UserError(f"the shards are not those that {fault} was written with: their digests differ")
    batches = [data.batch(Draw(one["epoch"], one["first"]), rank, len(ranks)) for one in ranks[rank]]
    if [batch.key for batch in batches] != [one["keys"] for one in ranks[rank]]:
        raise UserError(f"the recipe beside {fault} gives other samples: its data section was changed since")
    return batches


def _data(recipe: Path) -> Shards:
    """The data of a run, from its resolved recipe."""
    if not recipe.is_file():
        raise UserError(f"no {recipe}: a fault file has to stay in its run folder")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Shards, "data")
    parsed = parser.parse_object({"data": yaml.safe_load(recipe.read_text())["data"]})
    return parser.instantiate_classes(parsed).data
