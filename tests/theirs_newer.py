"""V-JEPA 2-AC and 2.1 as functions of state dicts with the published names and shapes, in the manner of `theirs`."""

import torch
import torch.nn.functional as F
from theirs import block, linear, norm, predictor_state, tiled, transformer_state


def action_turn(x, moments, side, conditions):
    """Queries or keys (B, heads, T (C + N), d): patches by time, row and column, what stands before them by time."""
    share = 2 * (x.shape[-1] // 3 // 2)
    x = x.unflatten(2, (moments, -1))
    t = torch.arange(moments)[:, None]  # beside the tokens of a moment
    first, rest = x[..., :share], x[..., share:]
    first = tiled(first, t.expand(-1, x.shape[3])[None, None].float())
    place = torch.arange(side**2).float()
    patches = rest[..., conditions:, :]
    h = tiled(patches[..., :share], (place // side)[None, None, None])
    w = tiled(patches[..., share : 2 * share], (place % side)[None, None, None])
    rest = torch.cat([rest[..., :conditions, :], torch.cat([h, w, patches[..., 2 * share :]], -1)], 3)
    return torch.cat([first, rest], -1).flatten(2, 3)


def action_predictor(state, tokens, actions, poses, heads, side, extrinsics=None, depth=2):
    """Tokens (B, T, N, D), actions and poses (B, T, 7) -> (B, T, N, D)."""
    given = [linear(state, "action_encoder", actions), linear(state, "state_encoder", poses)]
    if extrinsics is not None:
        given.append(linear(state, "extrinsics_encoder", extrinsics))
    moments, count = tokens.shape[1], len(given)
    x = torch.cat([*(one[:, :, None] for one in given), linear(state, "predictor_embed", tokens)], 2)
    size = x.shape[2]
    mask = torch.ones(moments, moments).tril().bool().repeat_interleave(size, 0).repeat_interleave(size, 1)
    x = x.flatten(1, 2)
    for i in range(depth):
        x = block(state, f"predictor_blocks.{i}", x, heads, lambda q: action_turn(q, moments, side, count), mask)
    return linear(state, "predictor_proj", norm(state, "predictor_norm", x.unflatten(1, (moments, -1))[:, :, count:]))


def action_state(width, inner, depth=2):
    state = predictor_state(width, inner, depth)
    for name, numbers in (("action_encoder", 7), ("state_encoder", 7), ("extrinsics_encoder", 6)):
        state |= {f"{name}.weight": torch.randn(inner, numbers) * 0.3, f"{name}.bias": torch.randn(inner) * 0.1}
    return state


def stretched(x, index, side, patch):
    """V-JEPA 2.1's turn of queries or keys by the places of their tokens, index (B, N): pairs, rows as of 256 px."""
    share, grown = 2 * (x.shape[-1] // 3 // 2), (256 // patch - 1) / (side - 1)
    places = index // side**2, index % side**2 // side * grown, index % side * grown
    pieces = []
    for i, place in enumerate(places):
        even, odd = x[..., i * share : (i + 1) * share].unflatten(-1, (-1, 2)).unbind(-1)
        angle = place[:, None, :, None] * 10000.0 ** -(torch.arange(share // 2) / (share / 2))
        pair = even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()
        pieces.append(torch.stack(pair, -1).flatten(-2))
    return torch.cat([*pieces, x[..., 3 * share :]], -1)


def multilevel(state, clip, heads, levels, keep=None):
    """Normalised clips (B, 3, T, H, W), pictures with T = 1 -> normed tokens after the blocks `levels`, from 1.

    With `keep` (B, K) of these tokens alone.
    """
    name, kind = ("patch_embed_img", "img") if clip.shape[2] == 1 else ("patch_embed", "video")
    kernel = state[f"{name}.proj.weight"]
    maps = F.conv3d(clip, kernel, state[f"{name}.proj.bias"], stride=kernel.shape[2:])
    x, found = maps.flatten(2).mT + state[f"{kind}_mod_embed"], []
    index, side = torch.arange(x.shape[1])[None] if keep is None else keep, maps.shape[-1]
    x = x if keep is None else torch.stack([one[places] for one, places in zip(x, keep, strict=True)])
    for i in range(levels[-1]):
        x = block(state, f"blocks.{i}", x, heads, lambda q: stretched(q, index, side, kernel.shape[-1]))
        if i + 1 in levels:
            found.append(norm(state, f"norms_block.{len(found)}", x))
    return found


def multilevel_predictor(state, context, seen, hidden, heads, side, patch, kind="video", depth=1):
    """As `theirs.predictor`, for both kinds of tokens: predicted (B, K', out) and seen (B, K, out)."""
    if "predictor_embed.0.weight" in state:
        x = linear(state, "predictor_embed.2", F.gelu(linear(state, "predictor_embed.0", context)))
    else:
        x = linear(state, "predictor_embed", context)
    x = torch.cat([x, state["mask_tokens.1"].expand(len(x), hidden.shape[1], -1)], 1) + state[f"{kind}_mod_embed"]
    index = torch.cat([seen, hidden], 1)
    for i in range(depth):
        x = block(state, f"predictor_blocks.{i}", x, heads, lambda q: stretched(q, index, side, patch))
    x = norm(state, "predictor_norm", x)
    count = seen.shape[1]
    return linear(state, "predictor_proj", x[:, count:]), linear(state, "predictor_proj_context", x[:, :count])


def multilevel_state(width, patch, depth=12):
    """An encoder's weights; `patch` in pixels."""
    state = transformer_state(width, 4 * width, (2, patch, patch), depth, last="norms_block.3")
    for i in range(3):
        state |= {f"norms_block.{i}.weight": torch.rand(width) + 0.5, f"norms_block.{i}.bias": torch.randn(width) * 0.1}
    state |= {f"{kind}_mod_embed": torch.randn(1, 1, width) * 0.3 for kind in ("img", "video")}
    state["patch_embed_img.proj.weight"] = torch.randn(width, 3, 1, patch, patch) * 0.1
    return state | {"patch_embed_img.proj.bias": torch.randn(width) * 0.1}


def multilevel_predictor_state(width, inner, levels, out):
    """A predictor's weights: all four levels of the encoder come in and go out, or the last and a teacher's width."""
    state = predictor_state(width, inner)
    if levels > 1:
        del state["predictor_embed.weight"], state["predictor_embed.bias"]
        shapes = {"0": (width, levels * width), "2": (inner, width)}
        for place, shape in shapes.items():
            state[f"predictor_embed.{place}.weight"] = torch.randn(shape) * 0.2
            state[f"predictor_embed.{place}.bias"] = torch.randn(shape[0]) * 0.1
    for name in ("predictor_proj", "predictor_proj_context"):
        state |= {f"{name}.weight": torch.randn(out, inner) * 0.2, f"{name}.bias": torch.randn(out) * 0.1}
    state |= {f"{kind}_mod_embed": torch.randn(1, 1, inner) * 0.3 for kind in ("img", "video")}
    return state | {f"mask_tokens.{i}": torch.randn(1, 1, inner) for i in range(8)}
