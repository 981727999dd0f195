"""Meta's models as functions of state dicts with the published names and shapes: what loading is compared with.

Written from the papers and the published parameter names, apart from our modules: plain convolutions, plain attention.
"""

import torch
import torch.nn.functional as F


def linear(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def tiled(x, position):
    """V-JEPA 2's turn of `x` (B, heads, N, d) by positions (B, 1, N): frequencies laid out twice in a row."""
    half = x.shape[-1] // 2
    angle = position[..., None] * 10000.0 ** -(torch.arange(half, dtype=torch.float32) / half)  # (B, 1, N, half)
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    across = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos + across * sin


def turned(x, index, side):
    """Queries or keys by the places of their tokens; index (B, N)."""
    share = 2 * (x.shape[-1] // 3 // 2)
    t, h, w = index // side**2, index % side**2 // side, index % side
    pieces = [tiled(x[..., i * share : (i + 1) * share], p[:, None].float()) for i, p in enumerate((t, h, w))]
    return torch.cat([*pieces, x[..., 3 * share :]], -1)


def block(state, name, x, heads, turn=None, mask=None):
    q, k, v = linear(state, f"{name}.attn.qkv", norm(state, f"{name}.norm1", x)).chunk(3, -1)
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    if turn is not None:
        q, k = turn(q), turn(k)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weight = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
    x = x + linear(state, f"{name}.attn.proj", (weight @ v).transpose(1, 2).flatten(2))
    return x + linear(
        state, f"{name}.mlp.fc2", F.gelu(linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.norm2", x)))
    )


def vit(state, clip, heads, depth=2, rotary=False, positions=None):
    """Normalised pictures (B, 3, H, W) or clips (B, 3, T, H, W) -> (B, N, D)."""
    kernel = state["patch_embed.proj.weight"]
    convolve = F.conv2d if kernel.dim() == 4 else F.conv3d
    maps = convolve(clip, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[2:])
    x = maps.flatten(2).mT
    index, side = torch.arange(x.shape[1])[None], maps.shape[-1]
    turn = (lambda heads: turned(heads, index, side)) if rotary else None
    if not rotary:
        x = x + (state["pos_embed"] if positions is None else positions)
    for i in range(depth):
        x = block(state, f"blocks.{i}", x, heads, turn)
    return norm(state, "norm", x)


def predictor(state, context, seen, hidden, heads, depth=1, side=None, token="mask_token"):
    """Context tokens (B, K, D), what is seen (B, K) and hidden (B, K') -> (B, K', D); with `side` rotary."""
    x = linear(state, "predictor_embed", context)
    query = state[token].expand(len(x), hidden.shape[1], -1)
    if side is None:
        table = state["predictor_pos_embed"][0]
        x, query = x + table[seen], query + table[hidden]
    x = torch.cat([x, query], 1)
    index = torch.cat([seen, hidden], 1)
    turn = None if side is None else lambda heads: turned(heads, index, side)
    for i in range(depth):
        x = block(state, f"predictor_blocks.{i}", x, heads, turn)
    return linear(state, "predictor_proj", norm(state, "predictor_norm", x)[:, seen.shape[1] :])


def transformer_state(width, hidden, patch, depth, stack="blocks", last="norm"):
    """Random weights of a transformer under the published names; `patch` is the shape of the kernel, or None."""
    shapes = {} if patch is None else {"patch_embed.proj.weight": (width, 3, *patch), "patch_embed.proj.bias": (width,)}
    for i in range(depth):
        for name, out, into in (("attn.qkv", 3, 1), ("attn.proj", 1, 1)):
            shapes |= {
                f"{stack}.{i}.{name}.weight": (out * width, into * width),
                f"{stack}.{i}.{name}.bias": (out * width,),
            }
        shapes |= {f"{stack}.{i}.mlp.fc1.weight": (hidden, width), f"{stack}.{i}.mlp.fc1.bias": (hidden,)}
        shapes |= {f"{stack}.{i}.mlp.fc2.weight": (width, hidden), f"{stack}.{i}.mlp.fc2.bias": (width,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{stack}.{i}.{name}.weight": (width,), f"{stack}.{i}.{name}.bias": (width,)}
    shapes |= {f"{last}.weight": (width,), f"{last}.bias": (width,)}
    return {
        name: 0.15 * torch.randn(shape) + (0.8 if "norm" in name and "weight" in name else 0)
        for name, shape in shapes.items()
    }


def predictor_state(width, inner, depth=1):
    state = transformer_state(inner, 4 * inner, None, depth, "predictor_blocks", "predictor_norm")
    state |= {
        "predictor_embed.weight": torch.randn(inner, width) * 0.2,
        "predictor_embed.bias": torch.randn(inner) * 0.1,
    }
    return state | {
        "predictor_proj.weight": torch.randn(width, inner) * 0.2,
        "predictor_proj.bias": torch.randn(width) * 0.1,
    }


def behind(prefix, state):
    return {prefix + name: one for name, one in state.items()}


def batch_norm(state, name, x):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)


def resnet(state, x, blocks):
    """VICReg's ResNet of bottleneck blocks, to its last map (B, D, h, w); it pads first and convolves then."""
    x = F.conv2d(F.pad(x, (1, 1, 1, 1)), state["conv1.weight"], stride=2, padding=2)
    x = F.max_pool2d(batch_norm(state, "bn1", x).relu(), 3, 2, 1)
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = batch_norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
            y = batch_norm(
                state, f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            ).relu()
            y = batch_norm(state, f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
            if f"{name}.downsample.0.weight" in state:
                x = batch_norm(
                    state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                )
            x = (x + y).relu()
    return x


def resnet_state(stem, blocks):
    kernels, into = {"conv1": (stem, 3, 7, 7)}, stem
    for stage, count in enumerate(blocks, start=1):
        planes = stem * 2 ** (stage - 1)
        for i in range(count):
            name = f"layer{stage}.{i}"
            kernels |= {f"{name}.conv1": (planes, into, 1, 1), f"{name}.conv2": (planes, planes, 3, 3)}
            kernels[f"{name}.conv3"] = (4 * planes, planes, 1, 1)
            if i == 0:
                kernels[f"{name}.downsample.0"] = (4 * planes, into, 1, 1)
            into = 4 * planes
    state = {}
    for name, shape in kernels.items():
        state[f"{name}.weight"] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        state |= batch_norm_state(name.replace("conv", "bn").replace("downsample.0", "downsample.1"), shape[0])
    return state


def batch_norm_state(name, width):
    return {
        f"{name}.weight": torch.rand(width) + 0.5, f"{name}.bias": torch.randn(width) * 0.1,
        f"{name}.running_mean": torch.randn(width) * 0.1, f"{name}.running_var": torch.rand(width) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }  # fmt: skip


def convnext(state, x, depths):
    """VICRegL's ConvNeXt, without layer scale: normed tokens of the last map (B, N, D)."""
    for i, depth in enumerate(depths):
        if i:
            x = norm(state, f"downsample_layers.{i}.0", x.movedim(1, -1)).movedim(-1, 1)
        kernel = state[name := f"downsample_layers.{i}.{0 if i == 0 else 1}.weight"]
        x = F.conv2d(x, kernel, state[name.replace("weight", "bias")], stride=kernel.shape[-1])
        if i == 0:
            x = norm(state, "downsample_layers.0.1", x.movedim(1, -1)).movedim(-1, 1)
        for j in range(depth):
            name = f"stages.{i}.{j}"
            y = F.conv2d(x, state[f"{name}.dwconv.weight"], state[f"{name}.dwconv.bias"], padding=3, groups=x.shape[1])
            y = F.gelu(linear(state, f"{name}.pwconv1", norm(state, f"{name}.norm", y.movedim(1, -1))))
            x = x + linear(state, f"{name}.pwconv2", y).movedim(-1, 1)
    return norm(state, "norm", x.flatten(2).mT)


def convnext_state(depths, dims):
    shapes = {"downsample_layers.0.0": (dims[0], 3, 4, 4), "downsample_layers.0.1": (dims[0],), "norm": (dims[-1],)}
    for i, (depth, width) in enumerate(zip(depths, dims, strict=True)):
        if i:
            shapes |= {
                f"downsample_layers.{i}.0": (dims[i - 1],),
                f"downsample_layers.{i}.1": (width, dims[i - 1], 2, 2),
            }
        for j in range(depth):
            shapes |= {f"stages.{i}.{j}.dwconv": (width, 1, 7, 7), f"stages.{i}.{j}.norm": (width,)}
            shapes |= {f"stages.{i}.{j}.pwconv1": (4 * width, width), f"stages.{i}.{j}.pwconv2": (width, 4 * width)}
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * 0.2 + (0.8 if len(shape) == 1 else 0)
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    return state
