"""Short-term memory: what is recalled is what was written."""

import pytest
import torch

from jepa_pretrain.agent.memory import Memory, Moment
from jepa_pretrain.contracts import UserError


def moment(time: list[int], value: float) -> Moment:
    """States are (value + environment, 1): the energy is ten times the first number."""
    first = value + torch.arange(len(time)).float()
    state = torch.stack([first, torch.ones(len(time))], 1)[:, None]
    return Moment(torch.tensor(time), state, torch.zeros(len(time), 3), 10 * first)


def filled(capacity: int, times: list[list[int]]) -> Memory:
    memory = Memory(capacity)
    for i, time in enumerate(times):
        memory.write(moment(time, 100.0 * i))
    return memory


def test_pairs_are_of_one_episode_and_one_environment():
    memory = filled(10, [[0, 0], [1, 1], [2, 0], [3, 1]])  # the second environment begins anew at its third moment
    states, energies = memory.pairs(1)
    found = {(s, e) for s, e in zip(states[:, 0, 0].tolist(), energies.tolist(), strict=True)}
    assert found == {(0, 1000), (100, 2000), (200, 3000), (1, 1010), (201, 3010)}
    states, energies = memory.pairs(3)
    assert states[:, 0, 0].tolist() == [0] and energies.tolist() == [3000]
    assert memory.pairs(0)[1].tolist() == [0, 10, 1000, 1010, 2000, 2010, 3000, 3010]


def test_windows_hold_all_that_lies_between():
    memory = filled(10, [[0], [1], [2], [3]])
    states, energies, last = memory.windows(2)
    assert energies.tolist() == [[0, 1000, 2000], [1000, 2000, 3000]]
    assert states[:, 0, 0].tolist() == [0, 100] and last[:, 0, 0].tolist() == [200, 300]


def test_ring_forgets_the_oldest_and_keeps_the_order():
    memory = filled(3, [[i, i] for i in range(5)])
    assert len(memory) == 6
    assert [one[:, 0, 0].tolist() for one in memory.episodes()] == [[200, 300, 400], [201, 301, 401]]
    assert memory.pairs(2)[1].tolist() == [4000, 4010]


def test_episodes_part_where_time_begins_anew():
    memory = filled(10, [[0, 5], [1, 0], [2, 1]])
    assert [len(one) for one in memory.episodes()] == [3, 1, 2]


def test_recall_gives_the_most_alike_first():
    memory = Memory(4)
    for angle in (0.0, 0.5, 1.0, 1.5):
        state = torch.tensor([[[angle, 1.0]]]).cos()
        state[..., 1] = torch.tensor(angle).sin()
        memory.write(Moment(torch.tensor([0]), state, torch.zeros(1, 1), torch.tensor([angle])))
    query = 7 * torch.tensor([[[0.9, 0.0]], [[0.1, 0.0]]]).cos()
    query[:, 0, 1] = 7 * torch.tensor([0.9, 0.1]).sin()
    found = memory.recall(query, 2)
    assert found.moments.energy.tolist() == [[1.0, 0.5], [0.0, 0.5]]
    torch.testing.assert_close(found.likeness[:, 0], torch.tensor([0.1, 0.1]).cos())
    assert memory.recall(query, 9).likeness.shape == (2, 4)


def test_state_dict_brings_everything_back():
    memory, other = filled(3, [[i, i] for i in range(5)]), Memory(1)
    other.load_state_dict(memory.state_dict())
    for one in (memory, other):
        one.write(moment([5, 5], 500.0))
    assert torch.equal(memory.pairs(1)[0], other.pairs(1)[0]) and len(other) == 6


def test_mistakes_are_named():
    memory = Memory(3)
    with pytest.raises(UserError, match="this memory is empty"):
        memory.recall(torch.zeros(1, 1, 2), 1)
    with pytest.raises(UserError, match="this memory is empty"):
        memory.pairs(1)
    memory.write(moment([0], 1.0))
    with pytest.raises(UserError, match=r"holds a action of shape|holds a state of shape|holds a time of shape"):
        memory.write(moment([0, 0], 1.0))
    with pytest.raises(UserError, match="not finite"):
        memory.write(moment([1], float("nan")))
    with pytest.raises(UserError, match=r"states of shape \(1, 2\), asked for \(1, 5\)"):
        memory.recall(torch.zeros(1, 1, 5), 1)
    with pytest.raises(UserError, match="lie 2 apart"):
        memory.pairs(2)
    with pytest.raises(UserError, match="capacity 0"):
        Memory(0)
