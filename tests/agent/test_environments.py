"""Environments as an agent sees them: many at once, each by itself, whatever happens in one of them."""

import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")

import toy_environment

from jepa_pretrain.agent.behaviours import Random, behaviour
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.rollouts import play
from jepa_pretrain.contracts import Episode, UserError

toy_environment.register()
TOY = toy_environment.NAME


def test_pictures_and_vectors_are_those_of_each_environment():
    many = Environments(TOY, 3, size=32)
    places = [[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]]
    seen = many.reset([1, 2, 3], [{"state": one, "target_state": [0.0, 1.0]} for one in places])
    assert torch.equal(seen.proprio, torch.tensor(places))
    assert torch.equal(seen.state[:, 2:], torch.tensor([[0.0, 1.0]]).expand(3, -1))
    pictures = many.pictures()
    assert pictures.shape == (3, 3, 32, 32) and pictures.dtype == torch.uint8
    for picture, (x, y) in zip(pictures, places, strict=True):
        rows, columns = picture[0].nonzero().unbind(1)
        assert (columns.min(), rows.min()) == (int(27 * x), int(27 * y))
    seen = many.step(torch.tensor([[1.0, 0.0], [0.0, -1.0], [-9.0, 0.0]]))  # the last one is clipped
    assert torch.allclose(seen.proprio, torch.tensor([[0.1, 0.0], [0.5, 0.4], [0.9, 0.0]]))
    assert not torch.equal(many.pictures(), pictures)
    small = Environments(TOY, 1, size=16)
    small.reset([1], [{"state": places[1]}])
    assert small.pictures().shape == (1, 3, 16, 16)


def test_an_episode_that_is_over_waits():
    many = Environments(TOY, 2, size=32)
    many.reset([1, 2], [{"state": [0.0, 0.0], "target_state": target} for target in ([0.15, 0.0], [1.0, 1.0])])
    right = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    first, second = many.step(right), many.step(right)
    assert (first.reached.tolist(), first.running.tolist()) == ([True, False], [False, True])
    assert second.reached.tolist() == [False, False], "it is told once"
    assert torch.allclose(second.proprio[:, 0], torch.tensor([0.1, 0.2])), "nobody steps behind the end"
    assert many.reset([1, 2]).running.all()


def test_processes_of_their_own_see_the_same():
    seen = []
    for vector in ("sync", "async"):
        many = Environments("CartPole-v1", 2, size=32, vector=vector)
        many.reset([3, 4])
        seen.append((many.step(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).state, many.pictures()))
        many.close()
    assert all(map(torch.equal, *seen))
    assert not torch.equal(seen[0][0][0], seen[0][0][1])


def test_an_environment_that_throws_ends_its_episode_alone():
    many = Environments("ToyThrows-v0", 3, size=32)
    assert Environments("ToyChoice-v0", 1).actions.discrete
    played = play(many, Random(many.actions), [2, 3, 4], steps=5)
    assert [isinstance(one, Episode) for one in played] == [True, False, True]
    assert played[1] == "RuntimeError: the floor gave way"
    assert len(played[0].frames) == 6 and len(played[0].actions) == 5
    alone = Environments("ToyThrows-v0", 1, size=32)
    (again,) = play(alone, Random(alone.actions), [4], steps=5)
    assert torch.equal(again.actions, played[2].actions), "an episode does not depend on its neighbours"
    assert torch.equal(again.frames, played[2].frames)


def test_an_episode_holds_what_happened():
    many = Environments("ToyChoice-v0", 1, size=32)
    (episode,) = play(many, Random(many.actions), [5], steps=20)
    moved = episode.proprio[1:] - episode.proprio[:-1]
    expected = 0.1 * episode.actions @ torch.eye(4, 2)
    inside = ((episode.proprio[:-1] + expected >= 0) & (episode.proprio[:-1] + expected <= 1)).all(1)
    assert inside.any() and torch.allclose(moved[inside], expected[inside], atol=1e-6)
    assert (episode.actions.sum(1) == 1).all()


def test_sticky_actions_are_held():
    many = Environments(TOY, 1, size=32)
    options = [{"target_state": [9.0, 9.0]}]
    held = []
    for name in ("random", "sticky"):
        (episode,) = play(many, behaviour(name, TOY, many.actions), [7], 100, options, look=False)
        held.append((episode.actions[1:] == episode.actions[:-1]).all(1).float().mean())
    assert held[0] == 0 and 0.8 < held[1] < 1


@pytest.mark.parametrize(
    "name, words",
    [
        ("Nowhere-v0", "no environment 'Nowhere-v0'"),
        ("ToyOdd-v0", "only numbers in bounds, or one choice of several"),
        ("ToyAlways-v9", "no environment"),
    ],
)
def test_mistakes_are_one_line(name, words):
    with pytest.raises(UserError, match=words) as error:
        Environments(name, 1)
    assert "\n" not in str(error.value)


def test_a_missing_package_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(UserError, match=r"gym_pusht/PushT-v0 needs gym_pusht: pip install 'jepa-pretrain\[agent\]'"):
        Environments("gym_pusht/PushT-v0", 1)
    with pytest.raises(UserError, match="no behaviour 'expert'; known: random, sticky"):
        behaviour("expert", TOY, None)
