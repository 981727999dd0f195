"""H-JEPA's step against its algorithm, its stages, its two ranks, and that it trains."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from small_hierarchies import WIDTH, first, hierarchy, upper

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.methods.hjepa import HJEPA, Weights
from jepa_pretrain.models.latent import Discrete, Gaussian
from jepa_pretrain.objectives.sigreg import SIGReg
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant, Linear, Ramp

B, T, A = 6, 9, 2


def method(made, objective=None, **options):
    return HJEPA(made, objective or VarianceCovarianceLoss(), AdamW(Constant(1e-3), Constant(0.0)), **options)


def with_actions(objective=None, **options):
    torch.manual_seed(0)
    return method(hierarchy(first(A), upper(2, inputs=A), upper(2, inputs=4)), objective, rollout=2, **options)


def without_actions(**options):
    torch.manual_seed(0)
    levels = first(latent=Discrete(WIDTH, 4)), upper(2, of_states=True, latent=Gaussian(WIDTH, 3)), upper(2, inputs=4)
    return method(
        hierarchy(*levels), macro_objective=SIGReg(16), rollout=3, **({"weights": Weights(macro=0.1)} | options)
    )


def batch(actions=True):
    rng = torch.Generator().manual_seed(1)
    clip = torch.randint(0, 256, (B, 3, T, 16, 16), dtype=torch.uint8, generator=rng)
    done = torch.randn(B, T, A, generator=rng) if actions else None
    return Batch([clip], [], torch.arange(B), [f"shard/{i}" for i in range(B)], done)


CASES = [(with_actions, True), (without_actions, False)]


@pytest.mark.parametrize("make, acted", CASES, ids=["actions", "states"])
def test_contract(make, acted):
    made = make()
    output = made.step(batch(acted))
    assert output.loss.ndim == 0 and output.loss.requires_grad
    assert output.features.shape == (B, made.exported.width)
    assert not output.features.requires_grad and not any(t.requires_grad for t in output.terms.values())
    assert {f"level{n}/{term}" for n in (1, 2, 3) for term in ("prediction", "regularizer", "std")} <= set(output.terms)
    assert ("level1/latent" in output.terms) != acted and ("level2/macro" in output.terms) != acted
    output.loss.backward()
    # zero gates let nothing through to the conditions in the first step, but the gradient exists
    assert not [n for n, p in made.named_parameters() if p.requires_grad and p.grad is None]
    assert made.get_submodule(made.export_name) is made.exported


def test_the_loss_is_the_algorithm():
    made, data = with_actions(weights=Weights(0.3)).eval(), batch()
    total = 0.0
    for level, own in zip(made.hierarchy.levels, made.hierarchy.moments(data.views[0], data.actions), strict=True):
        s, a = own
        for t in range(s.shape[1] - 1):  # every prefix by itself: nothing of the future is there to be seen
            predicted = level.predictor(s[:, : t + 1], a[:, : t + 1])[:, -1]
            total = total + (predicted - s[:, t + 1]).square().mean() / (s.shape[1] - 1)
        second = level.predictor(
            torch.stack([s[:, 0], level.predictor(s[:, :1], a[:, :1])[:, 0]], 1), a[:, :2]
        )[:, -1]  # fmt: skip
        total = total + (second - s[:, 2]).square().mean()
        pooled = [s[:, t].flatten(0, 1) for t in range(s.shape[1])]
        total = total + 0.3 * VarianceCovarianceLoss()(pooled)[0]
    torch.testing.assert_close(made.step(data).loss, total)


def test_alone_every_state_has_to_tell_what_follows():
    """Rollouts of two steps from each moment but level 2's first, whose window of two is not whole."""
    torch.manual_seed(0)
    levels = first(A), upper(2, inputs=A, window=2), upper(2, inputs=4)
    made, data = method(hierarchy(*levels), rollout=2, alone=True).eval(), batch()
    found, moments = made.step(data).terms, made.hierarchy.moments(data.views[0], data.actions)
    for number, (level, own) in enumerate(zip(made.hierarchy.levels, moments, strict=True), start=1):
        (s, a), total, starts = own, 0.0, range(number == 2, own.states.shape[1] - 2)
        for t in starts:
            for h, predicted in enumerate(level.predictor.rollout(s[:, t], a[:, t : t + 2]).unbind(1), start=1):
                total = total + (predicted - s[:, t + h]).square().mean() / (2 * len(starts))
        torch.testing.assert_close(found[f"level{number}/rollout"], total.detach())


@pytest.mark.parametrize("make, acted", CASES, ids=["actions", "states"])
def test_learns(make, acted):
    made, data = make(), batch(acted)
    optimizer = torch.optim.AdamW(made.parameters(), 3e-3)
    losses = []
    for step in range(12):
        torch.manual_seed(step % 3)
        loss = made.step(data).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_the_cost_of_z_starts_slowly(monkeypatch):
    made, losses = without_actions(weights=Weights(latent=Ramp(1.0, full=0.5))).eval(), []
    for progress in (0.0, 0.25, 0.5, 1.0):
        monkeypatch.setattr(HJEPA, "progress", progress)
        torch.manual_seed(0)
        output = made.step(batch(False))
        losses.append(float(output.loss.detach()))
    cost = sum(made.hierarchy.levels[n].latent.weight * float(output.terms[f"level{n + 1}/latent"]) for n in (0, 1))
    assert cost > 0
    assert [x - losses[0] for x in losses] == pytest.approx([0.0, cost / 2, cost, cost], abs=1e-4 * losses[0])


def test_the_objectives_weight_may_follow_a_schedule(monkeypatch):
    made, data, losses = with_actions(weights=Weights(Linear(0.6, 0.2))).eval(), batch(), []
    for progress in (0.0, 0.5):
        monkeypatch.setattr(HJEPA, "progress", progress)
        output = made.step(data)
        losses.append(output.loss.detach())
    total = sum(output.terms[f"level{number}/regularizer"] for number in (1, 2, 3))
    torch.testing.assert_close(losses[0] - losses[1], 0.2 * total)


def test_a_target_copy_gives_the_targets():
    made, data = with_actions(momentum=Constant(0.5)), batch()
    assert made.export_name == "target.module"
    with torch.no_grad():
        for p in made.target.module.parameters():
            p.add_(0.1)
    own = made.hierarchy.moments(data.views[0], data.actions)[0]
    target = made.target.module.moments(data.views[0], data.actions)[0].states
    predicted = made.hierarchy.levels[0].predictor(own.states[:, :-1], own.actions)
    expected = (predicted - target[:, 1:]).square().mean()
    torch.testing.assert_close(made.step(data).terms["level1/prediction"], expected.detach())
    made.step(data).loss.backward()
    assert all(p.grad is None for p in made.target.parameters())
    before = made.target.module.levels[0].predictor.head.bias.clone()
    made.follow(0.0)
    mean = (before + made.hierarchy.levels[0].predictor.head.bias) / 2
    torch.testing.assert_close(made.target.module.levels[0].predictor.head.bias, mean)


def test_level_by_level_trains_one_at_a_time(monkeypatch):
    made, data = with_actions(level_by_level=True), batch()
    for progress, stage in ((0.0, 1), (0.4, 2), (0.99, 3), (1.0, 3)):
        monkeypatch.setattr(HJEPA, "progress", progress)
        made.zero_grad(set_to_none=True)
        output = made.step(data)
        output.loss.backward()
        trained = {i + 1 for i, level in enumerate(made.hierarchy.levels) if level.predictor.head.bias.grad is not None}
        assert trained == {stage}
        # level 2's macro-actions read level 1's actions as they are, so nothing below a stage has a gradient
        assert (next(made.hierarchy.encoder.parameters()).grad is None) == (stage > 1)
        assert {name.split("/")[0] for name in output.terms} == {f"level{stage}"}


def gradients(made, data, seed):
    torch.manual_seed(seed)
    made.step(data).loss.backward()
    return [p.grad for p in made.parameters()]


def ranked(kind):
    """With actions; or with latent variables and macro-actions of states, without the noise that is drawn per rank."""
    return with_actions(objective=SIGReg(8)) if kind == "actions" else without_actions().eval()


def rank_main(rank, folder, kind):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    data = batch()
    done = data.actions.chunk(2)[rank] if kind == "actions" else None
    mine = data._replace(views=[data.views[0].chunk(2)[rank]], actions=done)
    grads = gradients(ranked(kind), mine, seed=rank)  # what rank 1 draws must not count
    for grad in grads:  # what DDP does
        dist.all_reduce(grad)
    if rank == 0:
        torch.save([grad / 2 for grad in grads], f"{folder}/gradients.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("kind", ["actions", "latents"])
def test_two_ranks_equal_one_on_the_joined_batch(kind, tmp_path):
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=rank_main, args=(r, str(tmp_path), kind)) for r in (0, 1)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join(60)
        assert one.exitcode == 0
    two = torch.load(tmp_path / "gradients.pt", weights_only=True)
    made = ranked(kind)
    assert sum(grad.abs().sum() for grad in two) > 0
    for (name, _), got, expected in zip(
        made.named_parameters(), two, gradients(made, batch(kind == "actions"), 0), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_without_the_variance_term_the_encoder_collapses(weight):
    torch.manual_seed(0)
    made = method(hierarchy(first(moments=3)), weights=Weights(weight))
    optimizer = torch.optim.AdamW(made.parameters(), 1e-2)
    spread = []
    for _ in range(25):
        output = made.step(batch(False))
        spread.append(float(output.terms["level1/std"]))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert spread[-1] > 2 * spread[0] if weight else spread[-1] < 0.3 * spread[0], spread[:: len(spread) - 1]


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="collapse"):
        HJEPA(hierarchy(first()), None, AdamW(Constant(1e-3), Constant(0.0)))
    with pytest.raises(UserError, match="actions of width 2"):
        with_actions().step(batch(False))
    with pytest.raises(UserError, match="level 3 has 1 moment"):
        data = batch()
        with_actions().step(data._replace(views=[data.views[0][:, :, :4]], actions=data.actions[:, :4]))
    with pytest.raises(UserError, match="reads"):
        method(hierarchy(first(), reads=0))
