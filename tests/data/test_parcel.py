"""Blocks of shared memory: used again when free, never while anything can still see them."""

import gc
import os
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from jepa_pretrain.contracts import Batch, Masks
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.order import Shuffled
from jepa_pretrain.data.parcel import HEADER, KEPT, Inbox, Outbox, Parcel
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.stack import Stack
from jepa_pretrain.data.stream import Loader
from jepa_pretrain.data.views import Augment, RandomCrop

Make = Callable[..., str]


def posted(outbox: Outbox, value: int, rows: int = 3) -> bytes:
    """A message with two views, one of them channels-last, of which two rows count."""
    stack = Stack(rows, outbox.take)
    for row in range(rows):
        one = torch.full((3, 5, 4), value + row, dtype=torch.uint8)
        stack.put(row, [[one[None]], [one.permute(1, 2, 0).contiguous().permute(2, 0, 1)[None]]])
    masks = [Masks(torch.arange(4).view(2, 2), torch.arange(8).view(2, 2, 2))]
    batch = Batch(stack.views(2), masks, torch.tensor([value, -1]), ["a", "b"])
    return bytes(ForkingPickler.dumps(Parcel(outbox, stack.layouts, rows, batch)))


def holds(batch: Batch, value: int) -> bool:
    wanted = torch.tensor([value, value + 1], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 3, 1, 5, 4)
    return all(torch.equal(view, wanted) for view in batch.views)


def test_what_is_posted_arrives():
    inbox = Inbox()
    batch = pickle.loads(posted(Outbox(inbox.number, 0), 7))
    assert holds(batch, 7)
    assert batch.views[0].is_contiguous()
    assert batch.views[1].stride(1) == 1, "channels last stays so"
    assert (batch.label.tolist(), batch.key) == ([7, -1], ["a", "b"])
    assert torch.equal(batch.masks[0].targets, torch.arange(8).view(2, 2, 2))
    batch.label.add_(1)  # the reader owns it


def test_a_block_is_used_again_when_the_last_tensor_on_it_is_gone():
    inbox = Inbox()
    outbox = Outbox(inbox.number, 0)
    first = pickle.loads(posted(outbox, 1))
    part = first.views[1][:, 0].detach()  # any relative keeps the block
    address = first.views[0].data_ptr()
    del first
    second = pickle.loads(posted(outbox, 10))
    assert second.views[0].data_ptr() != address
    assert part[:, 0, 0, 0].tolist() == [1, 2]
    del part
    gc.collect()
    third = pickle.loads(posted(outbox, 20))
    assert third.views[0].data_ptr() == address
    assert holds(second, 10)
    assert holds(third, 20)
    assert len(outbox.blocks) == len(inbox.blocks) == 2


def test_there_is_always_another_block_but_few_are_kept():
    inbox = Inbox()
    outbox = Outbox(inbox.number, 0)
    held = [pickle.loads(posted(outbox, 3 * number)) for number in range(2 * KEPT)]
    assert all(holds(batch, 3 * number) for number, batch in enumerate(held))
    assert len(outbox.blocks) == len(inbox.blocks) == KEPT
    del held
    gc.collect()
    assert [int(block[0]) for block in outbox.blocks] == [0] * KEPT


def test_a_larger_batch_gets_a_larger_block():
    inbox = Inbox()
    outbox = Outbox(inbox.number, 0)
    del_me = pickle.loads(posted(outbox, 1, rows=3))
    del del_me
    assert holds(pickle.loads(posted(outbox, 5, rows=30)), 5)
    assert len(outbox.blocks[1]) > len(outbox.blocks[0]) > HEADER


def test_a_message_for_a_loader_that_is_gone_is_nothing():
    outbox = Outbox(Inbox().number, 0)
    posted(outbox, 1)
    assert pickle.loads(posted(outbox, 2)) is None


def test_a_forked_process_frees_nothing():
    inbox = Inbox()
    outbox = Outbox(inbox.number, 0)
    batch = pickle.loads(posted(outbox, 1))
    child = os.fork()
    if child == 0:
        del batch
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert int(outbox.blocks[0][0]) == 1
    assert holds(batch, 1)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_training_holds_stays_as_it_is(shards: Make, start: str):
    index = open_index(shards(30, 33))

    def loader(workers: int, **settings: str) -> Loader:
        order = Shuffled(index.sizes, 3, seed=3, window=2)
        made = Loader(Pictures(index, order, [RandomCrop(8, flip=0.5), Augment(9)]), workers)
        for name, value in settings.items():
            setattr(made, name, value)
        return made

    alone = list(loader(0))
    reader = loader(1, multiprocessing_context=start)
    next(iter(reader))  # an epoch broken off, with batches on their way
    reader.load_state_dict({"epoch": 0, "start": 0})
    held = list(reader)
    assert len(held) == 21 > KEPT
    reader.load_state_dict({"epoch": 0, "start": 0})
    again = list(reader)  # while all those are held
    for one, two, wanted in zip(held, again, alone, strict=True):
        assert one.key == two.key == wanted.key
        assert all(map(torch.equal, one.views, wanted.views))
        assert all(map(torch.equal, two.views, wanted.views))
    del held, again, one, two
    reader.load_state_dict({"epoch": 0, "start": 0})
    places = {batch.views[0].data_ptr() for batch in reader}
    assert len(places) <= KEPT, "the memory of batches that are gone is used again"
