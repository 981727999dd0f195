"""The page of an episode shows what the agent saw and imagined."""

import io

import pytest
import torch
from known_worlds import Linear
from PIL import Image

from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.guardrails import HalfSpace
from jepa_pretrain.agent.planners.cem import CEM
from jepa_pretrain.agent.show import Episode, Recorder
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError
from jepa_pretrain.report.episode import PAUSE, gif, show


class Seen(Linear):
    """Its pictures are of one colour: red says where it is on the first axis, from -2 to 2."""

    def encode(self, frames):
        state = torch.zeros(len(frames), 1, 4)
        state[:, 0, 0] = frames[:, 0, 0, 0].float() / 64 - 2
        return state


def picture(x: torch.Tensor) -> torch.Tensor:
    """`(E,)` -> `(E, 3, 8, 8)` uint8."""
    frames = torch.zeros(len(x), 3, 8, 8, dtype=torch.uint8)
    frames[:, 0] = ((x + 2) * 64).clamp(0, 255).to(torch.uint8)[:, None, None]
    return frames


@pytest.fixture(scope="module")
def watched() -> Episode:
    world = Seen()
    rail = HalfSpace(torch.tensor([-1.0, 0, 0, 0]), limit=-100.0, name="never", weight=0.0)  # nothing can keep it
    agent = Agent(world, Cost(world.action), CEM(32, 3, 4), Task(torch.zeros(1, 1, 4), 3, guardrails=(rail,)))
    goal, state = picture(torch.tensor([1.0])), torch.tensor([[[-1.0, 0, 0, 0]]])
    agent.pursue(goal)
    recorder = Recorder(agent, goal[0], bank=picture(torch.linspace(-2, 1.9, 60)))
    for _ in range(8):
        frame = picture(state[:, 0, 0])
        state = world.step(state, agent.act(frame))
        recorder.watch(frame[0])
    return recorder.episode()


def test_imagined_frames_are_nearest_to_the_imagined_states(watched):
    first = watched.thoughts[0]
    assert len(watched.thoughts) == 8 and first.imagined.shape == (3, 3, 8, 8)
    red = first.imagined[:, 0, 0, 0].float() / 64 - 2
    assert (red.diff() > 0).all() and red[0] > -1  # towards the goal, as it goes on
    for thought, frame in zip(watched.thoughts, watched.frames, strict=True):
        assert thought.terms["goal"] == pytest.approx(((frame[0, 0, 0].item() / 64 - 2) - 1) ** 2 / 4, abs=1e-4)
    assert not first.safe


def test_page_is_whole_and_stands_alone(watched, tmp_path):
    page = show(watched, tmp_path, title="A <walk>").read_text()
    assert "A &lt;walk&gt;" in page and "http" not in page.replace("http://www.w3.org", "")
    for words in (
        "Imagined and real",
        "Energies",
        "Candidate plans",
        "No plan kept the guardrails",
        "imagined, step 1",
    ):
        assert words in page
    assert (tmp_path / "episode.gif").read_bytes() == gif(watched)


def test_gif_has_a_frame_for_each_step_and_three_pictures_in_each(watched):
    moving = Image.open(io.BytesIO(gif(watched)))
    shown = sum((moving.seek(i), moving.info["duration"])[1] for i in range(moving.n_frames))
    assert shown == 8 * PAUSE and moving.size[0] == 3 * moving.size[1]  # equal frames are one that stays longer
    row = moving.convert("RGB")
    goal = row.getpixel((moving.size[0] - 5, 5))[0]
    assert abs(goal - 192) < 12  # 1.0 in red
    assert abs(row.getpixel((5, 5))[0] - int(watched.frames[7, 0, 0, 0])) < 12


def test_mistakes_are_named(watched):
    world = Seen()
    agent = Agent(world, Cost(world.action), CEM(8, 1, 2), Task(torch.zeros(1, 1, 4)))
    with pytest.raises(UserError, match="are shown by frames"):
        Recorder(agent, watched.goal, bank=torch.zeros(3, 3, 9, 9, dtype=torch.uint8))
    with pytest.raises(UserError, match="no decision was watched"):
        Recorder(agent, watched.goal, bank=watched.frames).episode()
