"""One picture does not tell speed: what is put beside it, the same in recordings, in acting and for goals."""

import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")

import toy_environment

from jepa_pretrain.acting.load import bare
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.memory import Memory
from jepa_pretrain.agent.rollouts import play
from jepa_pretrain.agent.sight import Sight, encoded, encoded_at_rest, joined, looks, observed
from jepa_pretrain.agent.trials import Pursuit
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels
from jepa_pretrain.models.world import World

toy_environment.register()
BLOCK, STEPS = 2, 8


class Playing:
    """Acts as it is told, whatever it sees, and notes the states that it was asked about."""

    def __init__(self, actions: torch.Tensor) -> None:
        self.actions, self.states = actions, []  # (E, STEPS, 2)

    def begin(self, environments):
        pass

    def forget(self, rows):
        pass

    def act(self, state, task, rows=None):
        first = BLOCK * len(self.states)
        self.states.append(state)
        return self.actions[:, first : first + BLOCK].flatten(1)


class Script:
    """The same actions as a behaviour, to be recorded."""

    def __init__(self, actions: torch.Tensor) -> None:
        self.actions = actions

    def begin(self):
        self.step = -1

    def act(self, seen, rngs):
        self.step += 1
        return self.actions[:, self.step]


@pytest.fixture(scope="module")
def many():
    return Environments(toy_environment.NAME, 2, 32)


def mind(frames=3, **options):
    torch.manual_seed(0)
    dynamics = ResidualMLP(8, 2 * BLOCK, hidden=16)
    made = bare([World(Pixels(32, 8), dynamics, 8, (), BLOCK, low=(-1.0, -1.0), high=(1.0, 1.0), frames=frames)])
    made.memory = options.get("memory")
    return made


def test_recordings_acting_and_goals_put_the_same_pictures_together(many):
    agent = mind(memory=Memory(10))
    actions = torch.empty(2, STEPS, 2).uniform_(-0.7, 0.7, generator=torch.Generator().manual_seed(1))
    begin = [{"state": [0.3, 0.4], "target_state": [5, 5]}, {"state": [0.6, 0.2], "target_state": [5, 5]}]
    episodes = play(many, Script(actions), [1, 2], STEPS, begin)
    states = encoded(agent.model, episodes).unflatten(0, (2, STEPS + 1))  # (E, F, 1, D)
    seen, noting = many.reset([1, 2], begin), Playing(actions)
    goal = many.pictures()
    pursuit = Pursuit(agent.model, noting, agent.task)
    for _ in range(2):  # a second round of trials remembers nothing of the first
        noting.states.clear()
        pursuit.begin(goal)
        seen = many.reset([1, 2], begin)
        for _ in range(STEPS // BLOCK):
            for one in pursuit.act(seen, many.pictures).unbind(1):
                seen = many.step(one)
        found = torch.stack(noting.states, 1)
        torch.testing.assert_close(found, states[:, :STEPS:BLOCK])
    at_rest = encoded_at_rest(agent.model, episodes, torch.tensor([0, STEPS + 1]))
    torch.testing.assert_close(pursuit.task.goal, at_rest)
    torch.testing.assert_close(at_rest, states[:, 0])  # before the beginning nothing moved
    agent.pursue(goal)
    for step in range(STEPS):  # as a library: asked at every step, it looks where a block ends
        agent.act(torch.stack([one.frames[step] for one in episodes]))
    torch.testing.assert_close(agent.task.goal, at_rest)
    torch.testing.assert_close(torch.stack(list(agent.memory.ring.state[: STEPS // BLOCK]), 1), states[:, :STEPS:BLOCK])


def test_what_is_beside_is_of_the_same_episode_a_block_ago():
    assert looks([4, 2], 2, 3).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 3], [4, 4, 4], [4, 4, 5]]
    assert looks([2, 1], 5, 1).tolist() == [[0], [1], [2]]
    features = torch.arange(6.0)[:, None] * torch.tensor([1.0, 10.0])
    assert joined(features, looks([4, 2], 2, 2))[3].tolist() == [1.0, 10.0, 3.0, 30.0]
    frames = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    world = mind(2).model.world
    at = looks([4, 2], 2, 2)
    own = world.features(joined(frames, at))
    assert torch.equal(joined(world.features(frames), at), own)  # each frame seen once, as `agent train` does


def test_a_row_that_begins_again_forgets_and_others_do_not():
    sight, rows = Sight(2), torch.arange(2)
    sight.begin(2)
    one, two, three = (torch.full((2, 3, 4, 4), value) for value in (1, 2, 3))
    assert sight.look(one, rows)[:, ::3, 0, 0].tolist() == [[1, 1], [1, 1]]
    assert sight.look(two[1:], rows[1:])[:, ::3, 0, 0].tolist() == [[1, 2]]
    sight.forget(torch.tensor([1]))
    assert sight.look(three, rows)[:, ::3, 0, 0].tolist() == [[1, 3], [3, 3]]
    with pytest.raises(UserError, match=r"one picture of each environment, now \(3, 8, 8\), before \(3, 4, 4\)"):
        sight.look(torch.zeros(2, 3, 8, 8), rows)


def test_single_pictures_are_not_stacked(many):
    episodes = play(many, Script(torch.zeros(2, 3, 2)), [1, 2], 3)
    model = mind(1).model
    assert torch.equal(observed(model, episodes), torch.cat([one.frames for one in episodes]))
    assert observed(mind(2).model, episodes).shape == (8, 6, 32, 32)
