"""The order of samples is complete, and a pure function of what it should depend on."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.order import Draw, InOrder, Shuffled, Steps, permutation
from jepa_pretrain.seeds import seed_of

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum)


def epoch_of(order: Shuffled | InOrder, epoch: int = 0) -> list[tuple[int, int]]:
    """(shard, sample) of all that a rank reads in an epoch."""
    read = []
    for first in order.draws:
        slots, mine = order.slots(Draw(epoch, first)), order.mine(Draw(epoch, first))
        read += [(int(slots.shard[row]), int(slots.sample[row])) for row in mine]
    return read


def everything(sizes: list[int]) -> set[tuple[int, int]]:
    return {(shard, sample) for shard, size in enumerate(sizes) for sample in range(size)}


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**40))
def test_training_reads_each_sample_at_most_once_and_only_the_tail_is_missing(sizes, batch, world, window, seed):
    total = sum(sizes)
    if total < batch * world:
        with pytest.raises(UserError, match="lower batch_size"):
            Shuffled(sizes, batch, world)
        return
    ranks = [Shuffled(sizes, batch, world, rank, seed, window) for rank in range(world)]
    read = [pair for order in ranks for pair in epoch_of(order, epoch=3)]
    assert len(read) == len(set(read)) == total // (batch * world) * batch * world
    assert set(read) <= everything(sizes)
    assert len({len(order.draws) for order in ranks}) == 1


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 4), st.integers(1, 4))
def test_evaluation_reads_each_sample_exactly_once_in_equally_many_steps(sizes, batch, world):
    if sum(sizes) < world:
        with pytest.raises(UserError, match="fewer devices"):
            InOrder(sizes, batch, world)
        return
    ranks = [InOrder(sizes, batch, world, rank) for rank in range(world)]
    read = [pair for order in ranks for pair in epoch_of(order)]
    assert sorted(read) == sorted(everything(sizes))
    lengths = [len(order.slots(Draw(0, batch)).position) for order in ranks for batch in order.draws]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    sizes = [7, 0, 13, 5, 20, 1]
    batches = {}
    for world in (1, 2, 4):
        ranks = [Shuffled(sizes, 8 // world, world, rank, seed=5, window=2) for rank in range(world)]
        steps = []
        for first in ranks[0].draws:
            slots = ranks[0].slots(Draw(1, first))
            steps.append([int(slots.position[row]) for order in ranks for row in order.mine(Draw(1, first))])
            assert all(np.array_equal(order.slots(Draw(1, first)).sample, slots.sample) for order in ranks)
        batches[world] = steps
    assert batches[1] == batches[2] == batches[4]


def test_epochs_and_seeds_differ_and_repeat():
    sizes = [40, 40, 40]
    first = epoch_of(Shuffled(sizes, 4, seed=1), 0)
    assert first == epoch_of(Shuffled(sizes, 4, seed=1), 0)
    assert first != epoch_of(Shuffled(sizes, 4, seed=1), 1)
    assert first != epoch_of(Shuffled(sizes, 4, seed=2), 0)


def test_samples_of_a_window_are_mixed_and_windows_are_not():
    order = Shuffled([10] * 6, 10, window=3)
    windows = [{shard for shard, _ in epoch_of(order)[start : start + 30]} for start in (0, 30)]
    assert [len(window) for window in windows] == [3, 3]
    assert not windows[0] & windows[1]
    first_batch = epoch_of(order)[:10]
    assert len({shard for shard, _ in first_batch}) > 1


def test_an_order_travels_to_workers():
    order = Shuffled([10, 20], 4)
    epoch_of(order)
    assert epoch_of(pickle.loads(pickle.dumps(order))) == epoch_of(order)


def test_the_streams_never_change():
    """Recorded once: a change here would silently change every run that is resumed."""
    assert seed_of(1, 2, 3) == 6520558355739401531
    assert permutation(6, 0, 0).tolist() == [3, 2, 4, 1, 5, 0]


def test_steps_start_anywhere_and_every_iteration_is_the_next_epoch():
    draws = Shuffled([11], batch_size=2, world=2).draws
    steps = Steps(draws, epoch=4, start=4)
    assert list(steps) == [Draw(4, 4)]
    assert list(steps) == [Draw(5, 0), Draw(5, 4)]
    steps.set_epoch(9)
    assert next(iter(steps)) == Draw(9, 0)
    steps.set_epoch(9)
    assert next(iter(steps)) == Draw(9, 0), "asked for again"
    assert [len(list(Steps(range(3), repeat=True))) for _ in range(2)] == [3, 3]


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_another_batch_size_in_the_midst_of_an_epoch_reads_the_rest_once(sizes, before, after, share):
    if sum(sizes) < max(before, after):
        return
    first, second = Shuffled(sizes, before), Shuffled(sizes, after)
    done = list(Steps(first.draws))[: len(first.draws) * share // 100]
    rest = list(Steps(second.draws, start=len(done) * before))
    read = [
        place for order, draws in ((first, done), (second, rest)) for d in draws for place in order.slots(d).position
    ]
    assert read == list(range(len(read))), "without gap or repetition"
    assert len(read) > sum(sizes) - max(before, after)
