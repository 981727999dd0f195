"""Where a run stands between two batches, and how Lightning's loop is put back there.

Lightning's own counters describe the hook in which a checkpoint was written, and its loop repeats or leaves out what
comes after that hook when it goes on (validation, a row of the log, the rest of an epoch that a run ended in). Here a
checkpoint is written between two batches only: everything that follows from the batch before is done, nothing of the
next has begun. Then four numbers say all, and they can be set.
"""

from typing import NamedTuple


class Place(NamedTuple):
    """A moment between two batches."""

    epoch: int  # passes over the data that are finished
    batch: int  # batches of the running pass that are finished
    batches: int  # batches of the whole run that are finished
    stepped: int  # optimiser steps, as loggers count them


def after_batch(trainer) -> Place | None:
    """The place behind the batch that ends now (called in `on_train_batch_end`); None where gradients wait."""
    loop = trainer.fit_loop.epoch_loop
    if loop._should_accumulate():
        return None
    done, total = loop.batch_progress.current.ready, loop.batch_progress.total.ready
    stepped = loop._batches_that_stepped + 1
    if loop._num_ready_batches_reached():
        return Place(trainer.current_epoch + 1, 0, total, stepped)
    return Place(trainer.current_epoch, done, total, stepped)


def put_loops(checkpoint: dict, place: Place) -> None:
    """Rewrite the loops' state in a checkpoint before Lightning reads it, so that it starts at a place."""
    loops = checkpoint["loops"]["fit_loop"]
    loops["state_dict"].pop("combined_loader", None)  # the data module begins where it is told
    epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    for count in (epoch["total"], epoch["current"]):  # in the midst of an epoch, though it be its beginning
        count.update(ready=place.epoch + 1, started=place.epoch + 1, processed=place.epoch, completed=place.epoch)
    batch["is_last_batch"] = False
    for count, number in ((batch["total"], place.batches), (batch["current"], place.batch)):
        count.update(ready=number, started=number, processed=number, completed=number)
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = place.stepped


def put_counters(trainer, place: Place) -> None:
    """Set the loop's counters in `on_train_batch_start` of the first batch behind a place.

    What Lightning did in between depends on whether the place is where a validation is due; the counters must not.
    """
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped = place.stepped
    progress = loop.batch_progress
    for count, number in ((progress.total, place.batches), (progress.current, place.batch)):
        count.ready = number + 1
        count.started = count.processed = count.completed = number
