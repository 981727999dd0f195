"""A hierarchy reads the right frames, no others, and nothing of the future."""

import copy

import pytest
import torch
from small_hierarchies import WIDTH, first, hierarchy, predictor, upper
from torch import nn

from jepa_pretrain.contracts import Encoder, UserError
from jepa_pretrain.interop.architectures import build, describe
from jepa_pretrain.interop.export import write
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.abstraction import MacroActions, StateEncoder
from jepa_pretrain.models.hierarchy import lift
from jepa_pretrain.models.latent import Discrete, Gaussian, Sparse
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.reading import plan

B, T, A = 2, 9, 2


def clip(frames=T):
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (B, 3, frames, 16, 16), dtype=torch.uint8, generator=rng)


def actions(frames=T):
    return torch.randn(B, frames, A, generator=torch.Generator().manual_seed(2))


def shaken(made: nn.Module) -> nn.Module:
    """With weights under which everything depends on everything that it sees."""
    torch.manual_seed(0)
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    return made.eval()


def test_the_published_four_levels_read_ten_of_25_frames():
    """Stride 2, predictions trained on four to five moments: frames far apart are read for the high levels only."""
    levels = [first(moments=5), *(upper(2, inputs=4, moments=4) for _ in range(3))]
    readings = plan(levels, 25)
    assert [r.kept for r in readings] == [5, 4, 4, 4]
    assert readings[0].below == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert readings[3].moments == [0, 1, 2, 3] and readings[3].below == [0, 2, 4, 6]  # of level 3, whose step is 4


def test_windows_and_states_between_are_read_too():
    windowed = plan([first(moments=2), upper(4, macro=0, window=3, moments=2)], 9)
    assert windowed[0].below == [0, 1, 2, 3, 4]  # 0 and 1 for level 1; 0 and 2, 3, 4 for level 2
    between = plan([first(moments=2), upper(4, of_states=True, moments=2)], 9)
    assert between[0].below == [0, 1, 2, 3, 4]
    above = plan([first(moments=2), upper(2, of_states=True, moments=2), upper(2, inputs=4, moments=2)], 9)
    assert above[1].transitions == 2 and above[0].below == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strides", [(1, 2, 2), (2, 2, 1)])
def test_what_is_computed_equals_encoding_every_frame(strides):
    second = upper(strides[1], inputs=A * strides[0], moments=2, window=2)
    made = shaken(hierarchy(first(A, stride=strides[0], moments=2), second, upper(strides[2], inputs=4), reads=3))
    seen = []
    made.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]) // B))
    given = made.moments(clip(), actions())
    assert seen[0] < T, "sparse"
    step = 1
    for number, (level, own) in enumerate(zip(made.levels, given, strict=True), start=1):
        step *= level.stride
        dense = made.at(number).sequence(clip())
        torch.testing.assert_close(own.states, dense[:, : own.states.shape[1]])
        assert own.actions.shape == (B, own.states.shape[1] - 1, level.actions)
    assert dense.shape[1] == (T - 1) // step + 1


def test_frames_that_nobody_reads_change_nothing():
    made = shaken(hierarchy(first(moments=2), upper(4, macro=0), reads=2))
    before, changed = clip(), clip()
    changed[:, :, [2, 3, 5, 6, 7]] = 0
    for one, other in zip(made.moments(before), made.moments(changed), strict=True):
        assert torch.equal(one.states, other.states)
    for frame in (0, 1, 4, 8):
        changed = clip()
        changed[:, :, frame] = 0
        pairs = zip(made.moments(before), made.moments(changed), strict=True)
        assert any(not torch.equal(one.states, other.states) for one, other in pairs), frame


def test_a_state_knows_nothing_of_later_frames():
    made = shaken(hierarchy(first(), upper(2, window=2, macro=0), upper(2, macro=0, window=2)))
    before = [made.at(level).sequence(clip()) for level in (1, 2, 3)]
    for frame in range(1, T):
        changed = clip()
        changed[:, :, frame:] = 255 - changed[:, :, frame:]
        for level, (one, step) in enumerate(zip(before, (1, 2, 4), strict=True), start=1):
            other = made.at(level).sequence(changed)
            known = (frame - 1) // step + 1
            assert torch.equal(one[:, :known], other[:, :known])
            assert known == one.shape[1] or not torch.equal(one[:, known:], other[:, known:])


def test_actions_are_those_between_the_moments():
    """Level 1 joins those of its stride, with tubelets from a tubelet's last frame on; level 2 encodes level 1's."""
    made = hierarchy(first(A, stride=2), upper(2, inputs=2 * A))
    done = actions()
    one, two = made.moments(clip(), done)
    torch.testing.assert_close(one.actions, torch.stack([done[:, 2 * t : 2 * t + 2].flatten(1) for t in range(4)], 1))
    torch.testing.assert_close(two.actions, made.levels[1].macro(one.actions.unflatten(1, (2, 2))))
    of_two = hierarchy(first(2 * A), tubelet=2, frames=8)
    own = of_two.moments(clip(8), done[:, :8])[0]
    assert own.states.shape[1] == 4
    torch.testing.assert_close(own.actions, torch.stack([done[:, t : t + 2].flatten(1) for t in (1, 3, 5)], 1))


def test_macro_actions_of_states_read_both_ends_and_what_lies_between():
    made = shaken(hierarchy(first(), upper(2, of_states=True)))
    states = made.at(1).sequence(clip()).mean(2)
    expected = made.levels[1].macro(torch.stack([states[:, t : t + 3] for t in (0, 2, 4, 6)], 1))
    torch.testing.assert_close(made.moments(clip())[1].actions, expected)


def test_a_shared_space_takes_every_stride_th_state():
    shared = Level(predictor(actions=4), None, 2, MacroActions(A, 2, 4, hidden=16, heads=2))
    made = hierarchy(first(A), shared)
    one, two = made.moments(clip(), actions())
    assert torch.equal(two.states, one.states[:, ::2])


def test_tokens_are_averaged_over_space():
    made = hierarchy(first(grid=(2, 2)), Level(predictor(), StateEncoder(WIDTH, WIDTH, (2, 2), (1, 1)), 2))
    assert [own.states.shape[2] for own in made.moments(clip())] == [4, 1]
    tokens = torch.randn(B, 3, 1, 4, WIDTH)
    half = StateEncoder(WIDTH, WIDTH, (2, 2), (1, 2)).eval()
    rows = tokens.unflatten(3, (2, 2)).mean(3)  # (B, 3, 1, 2, D)
    alone = StateEncoder(WIDTH, WIDTH, (1, 2), (1, 2))
    alone.load_state_dict(half.state_dict())
    torch.testing.assert_close(half(tokens), alone(rows))


def test_joined_tokens_tell_where_things_are():
    tokens = torch.randn(B, 3, 1, 4, WIDTH)
    elsewhere = tokens.roll(1, dims=3)
    made = {join: StateEncoder(WIDTH, WIDTH, (2, 2), (1, 1), join=join) for join in (False, True)}
    assert made[True](tokens).shape == (B, 3, 1, WIDTH)
    torch.testing.assert_close(made[False](tokens), made[False](elsewhere))
    assert (made[True](tokens) - made[True](elsewhere)).abs().max() > 0.1
    whole = hierarchy(first(grid=(2, 2)), Level(predictor(), made[True], 2))
    built = build(describe(whole), {name: one.shape for name, one in whole.state_dict().items()}, "here")
    assert built.levels[1].encoder.join
    with pytest.raises(UserError, match="joined"):
        StateEncoder(WIDTH, WIDTH, (2, 2), (2, 2), join=True)


@pytest.mark.parametrize("join", [False, True])
def test_without_depth_a_window_is_read_moment_by_moment(join):
    made = shaken(StateEncoder(WIDTH, 6, (2, 2), (1, 1) if join else (2, 2), window=3, join=join))
    windows = torch.randn(B, 5, 3, 4, WIDTH)
    moments = [one.flatten(2).unsqueeze(2) if join else one for one in windows.unbind(2)]
    expected = made.fuse(torch.cat([made.head(one) for one in moments], dim=-1))
    torch.testing.assert_close(made(windows), expected)
    whole = hierarchy(Level(predictor(made.grid, width=6), StateEncoder(WIDTH, 6, (2, 2), made.grid, 3, join=join)))
    assert whole.levels[0].whole == 2 and Level(predictor(), StateEncoder(WIDTH, WIDTH, window=3), 2).whole == 1
    shapes = {name: one.shape for name, one in whole.state_dict().items()}
    built = build(describe(whole), shapes, "here")
    assert {name: one.shape for name, one in built.state_dict().items()} == shapes


def test_lifting_predictions_is_encoding_the_joined_sequence():
    made = shaken(hierarchy(first(), upper(2, macro=0, window=2)))
    states = made.at(1).sequence(clip())
    torch.testing.assert_close(lift(made.levels[1], states[:, 3:], states[:, :3]), made.at(2).sequence(clip()))


def all_kinds():
    return hierarchy(
        first(A, latent=Sparse(WIDTH, 3)),
        upper(2, of_states=True, latent=Discrete(WIDTH, 4)),
        Level(predictor(actions=4, latent=2), None, 2, MacroActions(4, 2, 4, hidden=16, heads=2), Gaussian(WIDTH, 2)),
        reads=2,
    )  # fmt: skip


@torch.no_grad()
def test_it_is_an_encoder_and_its_export_is_the_same(tmp_path):
    made = shaken(all_kinds())
    assert isinstance(made, Encoder)
    folder = write(made, tmp_path / "export", {})
    frozen = FrozenEncoder.load(folder)
    assert frozen.config == describe(made) and type(frozen.encoder) is type(made)
    assert torch.equal(frozen(clip()), made(clip())) and frozen(clip()).shape == (B, frozen.grid.tokens, frozen.width)
    layers = frozen.forward_layers(clip(), 3)
    assert [x.shape[1] for x in layers] == [9 * 4, 9, 5] and torch.equal(layers[-1], made(clip()))
    for one, other in zip(frozen.encoder.moments(clip(), actions()), made.moments(clip(), actions()), strict=True):
        assert torch.equal(one.states, other.states)
        torch.testing.assert_close(one.actions, other.actions)
    picture = frozen(clip()[:, :, 0])
    torch.testing.assert_close(picture[:, 0], made(clip())[:, 0])


def test_mistakes_are_explained():
    for wrong, words in (
        (lambda: hierarchy(), "one level or more"),
        (lambda: hierarchy(first(), upper(2, inputs=4)), "are made of inputs 4 wide, below are 0"),
        (lambda: hierarchy(first(grid=(2, 2)), upper(2, macro=0)), "level 2 takes states"),
        (lambda: hierarchy(upper(2, of_states=True)), "level 1 takes states"),
        (lambda: hierarchy(first(), reads=2), "levels 1 to 1"),
        (lambda: hierarchy(first(), tubelet=2), "tubelets|takes one moment"),
        (lambda: hierarchy(first())(clip(), torch.zeros(B, 1, dtype=torch.long)), "drop tokens"),
        (lambda: Level(predictor(latent=3), latent=Discrete(WIDTH, 4)), "latent variable is 4 wide"),
        (lambda: Level(predictor(actions=4), macro=MacroActions(2, 3, 4, hidden=16, heads=2), stride=2), "length"),
        (lambda: hierarchy(first(), upper(8, macro=0), upper(2, macro=0)).moments(clip()), "level 3 has 1 moment"),
    ):
        with pytest.raises(UserError, match=words):
            wrong()


def rebuilt(change, words):
    made = hierarchy(first())
    description = copy.deepcopy(describe(made))
    change(description["args"])
    shapes = {name: tensor.shape for name, tensor in made.state_dict().items()}
    with pytest.raises(UserError, match=words):
        build(description, shapes, "export")


def test_a_strangers_description_is_looked_at_before_anything_is_made():
    rebuilt(lambda args: args["levels"][0].update({"class": "os.system"}), "unknown encoder class 'os.system'")
    rebuilt(lambda args: args.update(encoder=describe(hierarchy(first()))), "unknown encoder class 'Hierarchy'")
    rebuilt(lambda args: args["levels"].extend([args["levels"][0]] * 99), "1 to 16 levels")
    rebuilt(lambda args: args["levels"][0]["args"]["predictor"]["args"].update(depth=10**4), "depth cannot be 10000")
    rebuilt(
        lambda args: args["levels"][0]["args"]["predictor"]["args"].update(context=60000), "position should have shape"
    )
    rebuilt(lambda args: args["levels"][0]["args"]["encoder"]["args"].update(hidden=10**12), "hidden cannot be")
    rebuilt(lambda args: args.update(frames="many"), "frames cannot be 'many'")
    rebuilt(lambda args: args.update(surprise=1), "surprise cannot be 1")
