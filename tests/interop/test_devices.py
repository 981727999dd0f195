"""What a module needs on another device moves with it, and nothing is made elsewhere; `meta` stands in for a device."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves as leaves

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import Grid, Masks
from jepa_pretrain.models.action_predictor import ActionPredictor
from jepa_pretrain.models.action_world import ActionWorld
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import SmallConv
from jepa_pretrain.models.multilevel import LEVELS, MultilevelPredictor, MultilevelViT
from jepa_pretrain.models.predictor import DensePredictor, MaskedPredictor, TiledRotaryPredictor
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.models.rotary_vit import MixedViT, RotaryViT, TiledRotaryViT
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.models.world import World

GRID, MASKS = Grid(2, 2, 2), Masks(torch.tensor([[0, 3]]), torch.tensor([[[1, 4], [2, 5]]]))
KEEP = torch.tensor([[0, 3]])
CONTEXT, STATES, ACTIONS = torch.rand(1, 2, 24), torch.rand(1, 3, 4, 24), torch.rand(1, 3, 7)


def pixels(encoder, frames=1):
    return torch.randint(0, 256, (1, 3, frames, *[encoder.image_size] * 2), dtype=torch.uint8)


def of_encoder(make, frames=1, keep=True):
    """An encoder frozen, what it is called with, and all that people call."""

    def case():
        frozen = FrozenEncoder(make())
        clip = pixels(frozen, frames)

        def call(module, clip, keep_tokens):
            found = module.features(clip, layers=1 if frames == 1 else 2)
            return [found, module.encoder(clip, keep_tokens)] if keep else [found]

        return frozen, (clip, KEEP), call

    return case


def of_clips(kind, **options):
    return of_encoder(lambda: kind(16, 8, 24, 1, 2, frames=4, tubelet=2, **options), frames=4)


def of_masks(make):
    def case():
        return make(), (CONTEXT, *MASKS), lambda module, context, *masks: module(context, Masks(*masks))

    return case


def rolled(module, *given):
    return module.rollout(*given)


def robot():
    encoder = TiledRotaryViT(16, 8, 24, 1, 2, frames=4, tubelet=2)
    world = ActionWorld(encoder, ActionPredictor(24, GRID, 24, 1, 2, extrinsics=True))
    frames = pixels(encoder, 2)
    plan, camera = torch.rand(1, 3, 7), torch.rand(1, 3, 6)
    return world, (frames, ACTIONS[:, :2], plan, camera), lambda m, f, *rest: m.rollout(m.encode(f), *rest)


def world():
    made = World(SmallConv(16, 8), ResidualMLP(8, actions=2), width=8, hidden=(), block=1)
    return made, (pixels(made)[:, :, 0], torch.rand(1, 2, 2)), lambda m, f, plan: m.rollout(m.encode(f), plan)


CASES = {
    "ViT": of_encoder(lambda: ViT(16, 8, 24, 1, 2)),
    "RotaryViT": of_clips(RotaryViT),
    "TiledRotaryViT": of_clips(TiledRotaryViT),
    "MixedViT": of_clips(MixedViT),
    "MultilevelViT": of_encoder(lambda: MultilevelViT(16, 8, 24, 2, 2, frames=4), frames=4),
    "ResNet": of_encoder(lambda: TimmEncoder("test_resnet", 32), keep=False),
    "ConvNeXt": of_encoder(lambda: TimmEncoder("test_convnext", 32), keep=False),
    "timm's ViT": of_encoder(lambda: TimmEncoder("test_vit", 32), keep=False),
    "MaskedPredictor": of_masks(lambda: MaskedPredictor(24, GRID, 24, 1, 2)),
    "TiledRotaryPredictor": of_masks(lambda: TiledRotaryPredictor(24, GRID, 24, 1, 2, joint=True)),
    "DensePredictor": of_masks(lambda: DensePredictor(24, GRID, 24, 1, 2, joint=True)),
    "MultilevelPredictor": of_masks(lambda: MultilevelPredictor(24, GRID, 24, 1, 2, joint=True)),
    "ActionWorld": robot,
    "TemporalPredictor": lambda: (TemporalPredictor(24, (2, 2), 7, depth=1), (STATES, torch.rand(1, 5, 7)), rolled),
    "World": world,
    "Projector": lambda: (Projector(24, (8,), 8).eval(), (CONTEXT[0],), lambda module, x: module(x)),
}


class Devices(TorchDispatchMode):
    """Refuses double precision, which MPS lacks, and tensors that come from a device other than the module's."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in leaves(out):
            if isinstance(one, torch.Tensor):
                assert one.dtype != torch.float64, f"{function} makes double precision"
                assert one.device.type == "cpu", f"{function} makes a tensor on the default device"
        return out


@pytest.mark.parametrize("name", CASES)
def test_what_other_devices_ask_of_a_module(name, monkeypatch):
    monkeypatch.setitem(LEVELS, 2, (1, 2))
    module, given, call = CASES[name]()
    with torch.no_grad():
        expected = call(module, *given)
        same(made_nowhere_else(call, module, given), expected)
        if "Projector" not in name:  # batch norms are left in single precision
            in_half_the_precision(call, copy.deepcopy(module), given, expected)
        found = call(module.to("meta"), *(one.to("meta") for one in given))  # all that it needs moves along
    assert all(one.is_meta for one in leaves(found))


def made_nowhere_else(call, module, given):
    """What comes out while a constant without a device would end on `meta`."""
    torch.set_default_device("meta")
    try:
        with Devices():
            return call(module, *given)
    finally:
        torch.set_default_device(None)


def same(found, expected):
    for ours, theirs in zip(leaves(found), leaves(expected), strict=True):
        assert torch.equal(ours, theirs)


def in_half_the_precision(call, module, given, expected):
    """`.to(torch.bfloat16)` of the module; pictures stay uint8 and become what the weights are."""
    half = [one.bfloat16() if one.is_floating_point() else one for one in given]
    found = call(module.to(torch.bfloat16), *half)
    for ours, theirs in zip(leaves(found), leaves(expected), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - theirs).abs().mean() < 0.1 * theirs.abs().mean() + 0.02
