"""What one does with an agent: let it try, teach its policy, look at an episode."""

import json

import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")
pytest.importorskip("av", reason="videos need PyAV")

import toy_environment
from PIL import Image

from jepa_pretrain import cli, load_agent
from jepa_pretrain.acting.calibrate import Foreseeing, calibrate
from jepa_pretrain.acting.collect import collect
from jepa_pretrain.acting.configure import configure
from jepa_pretrain.acting.critic import critic
from jepa_pretrain.acting.distill import distill, pairs
from jepa_pretrain.acting.evaluate import evaluate
from jepa_pretrain.acting.guard import guard
from jepa_pretrain.acting.levels import levels
from jepa_pretrain.acting.load import load_mind, weighted
from jepa_pretrain.acting.measure import measure
from jepa_pretrain.acting.plan import plan
from jepa_pretrain.acting.search import Search, searching
from jepa_pretrain.acting.show import show
from jepa_pretrain.acting.staged import Passed
from jepa_pretrain.acting.train import train
from jepa_pretrain.agent import distil as distilling
from jepa_pretrain.agent.critic import StepsToGo
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments, Seen
from jepa_pretrain.agent.sight import encoded
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Acting, Outcome, run
from jepa_pretrain.agent.world_model import Ensemble
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.trajectories import read_episodes
from jepa_pretrain.interop.export import write
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels
from jepa_pretrain.models.world import World

toy_environment.register()
TOY, CHOICE, STEPS = toy_environment.NAME, "ToyChoice-v0", "jepa_pretrain/RoomsSteps-v0"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    collect(TOY, str(folder), "sticky", 1200, 32, steps=40)
    return str(folder)


@pytest.fixture(scope="module")
def agent(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    train(recordings, str(folder / "world"), "pixels", steps=200, batch_size=64, block=2, rollout=3, width=16)
    critic(str(folder / "world"), recordings, str(folder / "agent"), steps=200, batch_size=128)
    return str(folder / "agent")


def reached(who: str, out, env: str = TOY, episodes: int = 20, **options) -> float:
    evaluate(who, env, episodes=episodes, parallel=20, out=str(out), budget=20, **options)
    return json.loads(out.read_text())["success"]["all"]["success"]


def test_trials_are_those_the_environment_draws():
    environments = Environments(TOY, 8, 32)
    trials = drawn_trials(environments, 20, 0)
    assert len(trials) == 20 and len({one.seed for one in trials}) == 20
    state = environments.reset([one.seed for one in trials[:8]], [one.start for one in trials[:8]]).state
    goal = torch.stack([torch.from_numpy(one.goal["state"]) for one in trials[:8]])
    assert torch.equal(state[:, 2:4], goal) and ((state[:, :2] - goal).norm(dim=1) >= 0.1).all()
    with pytest.raises(UserError, match="cannot be put at its goal"):
        drawn_trials(Environments("CartPole-v1", 2, 32), 2, 0)


def test_an_agent_reaches_what_chance_does_not(agent, tmp_path, capsys):
    chance = reached("random", tmp_path / "chance.json")
    assert reached(agent, tmp_path / "planner.json") > chance + 30
    plan(agent, TOY, episodes=3, budget=25)
    told = capsys.readouterr().out
    assert told.count("reached") >= 4 and "of 3 goals reached" in told
    assert int(told.split(" of 3 goals")[0].split()[-1]) >= 2


def test_all_that_reads_recordings_joins_their_pictures(recordings, tmp_path):
    """With a world model of three pictures; its weights are fresh, since what is asked here is what it is shown."""
    torch.manual_seed(0)
    made = World(Pixels(32, 8), ResidualMLP(12, 4, hidden=16), 12, (24,), 2, low=(-1.0,) * 2, high=(1.0,) * 2, frames=3)
    world = str(write(made, tmp_path / "world", {}))
    mind, policy, both, upper = (str(tmp_path / one) for one in ("mind", "policy", "both", "upper"))
    shown, encode = [], World.encode

    def noting(self, observations):
        shown.append(tuple(observations.shape[1:]))
        return encode(self, observations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "encode", noting)
        critic(world, recordings, mind, steps=2, batch_size=32)
        distill(mind, recordings, policy, TOY, states=20, rounds=2, steps=2, trials=2, ask=2)
        configure(policy, recordings, both, rules=True)
        evaluate(both, TOY, episodes=2, parallel=2, budget=6, adapt=recordings)
        guard(mind, recordings, str(tmp_path / "guarded"), 0.5, 0.5, 0.1)
        measure(world, recordings, horizon=2)
        levels(world, recordings, upper, (2,), width=6, macro=2, horizon=2, steps=2, batch_size=32)
        show(upper, TOY, str(tmp_path / "page"), budget=4)
    assert len(shown) > 20 and set(shown) == {(9, 32, 32)}
    with Image.open(tmp_path / "page" / "episode.gif") as film:
        assert film.n_frames > 3, "pictures of three channels"
    episodes, lowest, model = read_episodes(recordings)[:2], load_mind(upper).model, load_mind(world).model
    assert lowest.frames == 3 and torch.equal(encoded(lowest, episodes), encoded(model, episodes))


def test_a_distilled_policy_acts_alone_and_nearly_as_well(agent, recordings, tmp_path):
    distill(agent, recordings, str(tmp_path / "policy"), states=300, rounds=2, steps=80, ask=100)
    policy = load_agent(tmp_path / "policy")
    assert policy.reactive and policy.actor is policy.policy
    alone, planned = reached(str(tmp_path / "policy"), tmp_path / "p.json"), reached(agent, tmp_path / "a.json")
    assert alone > 0.7 * planned, (alone, planned)


def test_the_planner_is_asked_where_the_policy_went(agent, recordings, tmp_path, monkeypatch):
    asked, ask = [], distilling._asked

    def note(policy, planning, task, states, goals, generator):
        asked.append((states, goals))
        return ask(policy, planning, task, states[:4], goals[:4], generator)

    monkeypatch.setattr(distilling, "_asked", note)
    distill(agent, recordings, str(tmp_path / "warm"), env=TOY, warm=True, states=40, rounds=2, steps=2, trials=4)
    warm, (recorded, visited) = load_agent(tmp_path / "warm"), asked
    assert not warm.reactive and warm.policy is not None
    assert len(recorded[0]) == 40 and len(visited[1].unique(dim=0)) <= 4, "the goals of four trials"


def test_a_disc_is_kept_out_of(agent, recordings, tmp_path, capsys):
    guard(agent, recordings, str(tmp_path / "once"), 0.3, 0.3, 0.05, name="other")
    guard(str(tmp_path / "once"), recordings, str(tmp_path / "guarded"), 0.5, 0.5, 0.2, margin=0.05)
    assert "plans keep 0.25 away from (0.5, 0.5)" in capsys.readouterr().out
    mind = load_mind(str(tmp_path / "guarded"))
    other, rail = mind.task.guardrails
    assert (other.name, rail.name, rail.hard) == ("other", "disc", True)
    places = torch.tensor([[0.5, 0.5], [0.5, 0.6], [0.1, 0.5], [0.9, 0.9]])
    environments = Environments(TOY, 4, 32)
    environments.reset([0] * 4, [{"state": one.tolist(), "target_state": [0.0, 0.0]} for one in places])
    depth = rail.violation(mind.model.encode(environments.pictures())) * 0.25  # (4,) in units of the world
    torch.testing.assert_close(depth, torch.tensor([0.25, 0.15, 0.0, 0.0]), atol=0.1, rtol=0)
    with pytest.raises(UserError, match="radius above 0"):
        guard(agent, recordings, str(tmp_path / "no"), 0.5, 0.5, 0.0)


def test_what_a_critic_foresees_stands_beside_what_happened(agent, tmp_path, capsys):
    calibrate(agent, TOY, episodes=80, budget=20, bins=3, parallel=80, out=str(tmp_path / "c.json"))
    assert "predicted" in capsys.readouterr().out
    found = json.loads((tmp_path / "c.json").read_text())
    assert len(found["predicted"]) == 3 and found["realised"][0] < found["realised"][2], found
    assert found["correlation"] > 0.2, found

    class Still:
        def begin(self, environments):
            """Nothing to forget."""

        def act(self, state, task, rows=None):
            return state

    critic, block = StepsToGo(1), 2
    told = Foreseeing(Still(), critic)
    for _ in range(2):  # two parts of two environments; the second trial of the first part is lost, the last ends early
        told.begin(2)
        told.act(torch.zeros(2, 1, 1), Task(torch.zeros(1, 1, 1)), torch.tensor([0, 1]))
        told.act(torch.zeros(1, 1, 1), Task(torch.zeros(1, 1, 1)), torch.tensor([0]))
    outcome = Outcome([True, False, True, True], [False] * 4, [4, 8, 3, 1], 0.0, 0, 0)
    predicted, realised = told.beside(outcome, block)
    assert realised.tolist() == [2.0, 1.0, 1.5, 0.5, 0.5] and len(predicted) == 5


def test_an_ensemble_doubts_what_it_never_saw(recordings, tmp_path, capsys):
    """Trained by command, kept in a folder, its doubt weighed by command too."""
    options = dict(steps=60, batch_size=64, block=2, rollout=3, width=16, members=2)
    train(recordings, str(tmp_path / "worlds"), "pixels", **options)
    critic(str(tmp_path / "worlds"), recordings, str(tmp_path / "agent"), steps=30, batch_size=128)
    mind = load_mind(str(tmp_path / "agent"))
    assert isinstance(mind.model, Ensemble) and len(mind.model.models) == 2
    known = torch.cat([mind.model.encode(one.frames) for one in read_episodes(recordings)])[:200]
    rng = torch.Generator().manual_seed(0)
    plan = 2 * torch.rand(200, 2, 4, generator=rng) - 1
    seen, far = (
        mind.model.imagine(state, plan * reach).disagreement.mean() for state, reach in ((known, 1), (known, 5))
    )
    assert 0 < 2 * seen < far, "actions five times as large were never recorded"
    measure(str(tmp_path / "worlds"), recordings, horizon=2)
    assert "disagreement with the error" in capsys.readouterr().out
    evaluate(str(tmp_path / "agent"), TOY, episodes=4, parallel=4, budget=4, weights={"uncertainty": 3.0})
    task = weighted(mind, {"uncertainty": 3.0, "steps": 0.5})
    assert (dict(task.u), dict(task.v)) == ({"uncertainty": 3.0}, {"steps": 0.5})
    assert searching(mind, Search(risk=2.0)).task.risk == 2.0
    with pytest.raises(UserError, match="knows one future"):
        searching(mind, Search(futures=4))
    assert not weighted(mind, {"steps": 0}).v
    with pytest.raises(UserError, match="no term or critic of this agent is called distance"):
        weighted(mind, {"distance": 1.0})


def test_goals_are_drawn_ahead_and_anywhere(agent, recordings):
    mind, episodes = load_mind(agent), read_episodes(recordings)
    states, goals = pairs(mind, episodes, 40, torch.Generator().manual_seed(0))
    known = [mind.model.encode(one.frames)[:, 0] for one in episodes]
    for row in range(20):
        both = [[int((one[row] - part).norm(dim=1).min() < 1e-4) for part in known] for one in (states, goals)]
        assert any(a and b for a, b in zip(*both, strict=True)), "the first half share an episode"


def test_an_episode_is_shown(agent, recordings, tmp_path, capsys):
    cli.main(["agent", "show", agent, TOY, str(tmp_path / "page"), "--budget=12"])
    assert "reached in" in capsys.readouterr().out
    page = (tmp_path / "page" / "episode.html").read_text()
    for words in ("Imagined and real", "Decided at step 0", "Candidate plans", "agent in Toy-v0"):
        assert words in page
    moving = Image.open(tmp_path / "page" / "episode.gif")
    assert moving.n_frames > 1 and moving.size == (3 * moving.size[1], moving.size[1])
    show(agent, TOY, str(tmp_path / "again"), data=recordings, budget=2)
    Image.new("RGB", (32, 32)).save(tmp_path / "goal.png")
    show(agent, TOY, str(tmp_path / "own"), goal=str(tmp_path / "goal.png"), budget=2)


@pytest.fixture(scope="module")
def configured(agent, recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("configured")
    distill(agent, recordings, str(folder / "policy"), states=40, rounds=1, steps=60)
    configure(str(folder / "policy"), recordings, str(folder / "agent"), TOY, states=20, trials=10, rounds=1)
    return str(folder / "agent")


def test_a_configured_agent_thinks_less_and_arrives(configured, agent, tmp_path, capsys):
    alone, mixed = (reached(configured, tmp_path / f"{mode}.json", mode=mode) for mode in ("never", "configured"))
    told = json.loads((tmp_path / "configured.json").read_text())
    assert mixed >= alone - 10 and 0 < told["modes"]["thinking"] < 1 and "thought about" in capsys.readouterr().out
    show(configured, TOY, str(tmp_path / "page"), budget=12)
    page = (tmp_path / "page" / "episode.html").read_text()
    assert "<h2>Modes" in page and "surprise and mode by step" in page and "(surprise 0.00" in page
    with pytest.raises(UserError, match="has no policy"):
        configure(agent, "nowhere", str(tmp_path / "p"))


def test_stages_are_passed_in_order_and_judged_by_the_true_place(configured, tmp_path, capsys):
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps({"corners": {"goals": [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8]], "near": 0.15}}))
    assert reached(configured, tmp_path / "s.json", task=str(tasks), mode="little") <= 100
    plan(configured, TOY, episodes=1, budget=40, task=f"{tasks}:corners")
    assert "of 1 goals reached" in capsys.readouterr().out
    passed = Passed(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 0.1, 3, 2)
    for begins, places in ((True, [[1.0, 0], [0, 0]]), (False, [[0, 0], [1.0, 0]]), (True, [[0, 0], [0, 0]])):
        passed(Seen(torch.tensor(places), *[torch.zeros(2)] * 5), begins)
    assert passed.won(3) == [False, True, False], "the first went to the last stage first"


def test_learning_from_surprise_is_an_option(configured, recordings, tmp_path, capsys):
    with pytest.raises(UserError, match="does not know other motors"):
        evaluate(configured, TOY, episodes=2, parallel=2, motor=[-1.0, -1.0])
    with pytest.raises(UserError, match="random has no modes"):
        evaluate("random", TOY, adapt=recordings)
    reached(configured, tmp_path / "usual.json", mode="little", adapt=recordings)
    told = json.loads((tmp_path / "usual.json").read_text())["surprise"]
    assert told["blocks"] > 20 and told["updates"] == 0 and "surprised 0 times" in capsys.readouterr().out


def test_mistakes_are_explained(agent, recordings, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "goal.png")
    with pytest.raises(UserError, match="sees pictures of 32 x 32 pixels"):
        show(agent, TOY, str(tmp_path / "p"), goal=str(tmp_path / "goal.png"))
    (tmp_path / "goal.txt").write_text("the door")
    with pytest.raises(UserError, match="is no picture"):
        show(agent, TOY, str(tmp_path / "p"), goal=str(tmp_path / "goal.txt"))
    for call in (plan, evaluate):
        with pytest.raises(UserError, match="takes 4 choices as an action, this agent gives 2 numbers"):
            call(agent, CHOICE)
    collect(TOY, str(tmp_path / "small"), frames=40, size=24)
    with pytest.raises(UserError, match=r"takes frames \(B, 3, 32, 32\)"):
        distill(agent, str(tmp_path / "small"), str(tmp_path / "p"))
    with pytest.raises(UserError, match="cannot be put at its goal"):
        evaluate("random", "CartPole-v1", parallel=2)
    with pytest.raises(UserError, match="far goals are known in swm/TwoRoom-v1 and PointMaze_UMaze-v3 only"):
        evaluate("random", TOY, goals="far")
    with pytest.raises(UserError, match="does not plan"):
        evaluate("random", TOY, weights={"goal": 2.0})
    with pytest.raises(UserError, match="leave out --task"):
        evaluate(agent, TOY, task="tasks.json:tour", flops=True)


def test_four_moves_reach_neighbouring_rooms_and_chance_does_not():
    from jepa_pretrain.agent.behaviours import behaviour

    environments = Environments(STEPS, 8, 32)
    assert environments.actions.discrete and environments.actions.width == 4
    trials = drawn_trials(environments, 16, 0)
    expert, chance = (
        run(environments, Acting(behaviour(name, STEPS, environments.actions), list(range(8))), trials, 100)
        for name in ("expert", "random")
    )
    assert sum(expert.won) >= 14 and sum(chance.won) < 4  # with four moves the script is stuck now and then
