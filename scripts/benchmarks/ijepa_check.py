"""Where our I-JEPA and the official one differ, stage by stage, given the same weights, pictures and masks."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from ijepa_sides import Official, Ours, Setting, draw
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from jepa_pretrain.ops import gather_tokens

TOLERANCE = 1e-5


def check(setting: Setting) -> bool:
    """Prints the largest difference of every stage; True when all are within 1e-5 of the largest value there."""
    torch.manual_seed(0)
    official, ours = Official(setting), Ours(setting, joint=False)
    rows = [*fixed_positions(official, ours)]
    adopt(official, ours)
    batch = draw(setting, seed=1)
    rows += forward(official, ours, batch)
    rows += backward(official, ours, batch)
    rows.append(other_batches(official, ours, setting))
    show(rows, setting)
    undecayed = decay_differences(official, ours)
    print("weight decay differs for:", ", ".join(undecayed) or "no parameter")
    return all(difference <= TOLERANCE * scale for _, difference, scale in rows)


def fixed_positions(official: Official, ours: Ours) -> Iterator[tuple[str, float, float]]:
    yield row("encoder positions", official.encoder.pos_embed, ours.method.encoder.pos_embed)
    yield row("predictor positions", official.predictor.predictor_pos_embed, ours.method.predictor.predictor_pos_embed)


def adopt(official: Official, ours: Ours) -> None:
    """Copies the official weights; every name must be known on both sides.

    Biases and norms are made random first, for at their initial 0 and 1 a confusion of them would not show; so is the
    target, which would equal the encoder.
    """
    for module in (official.encoder, official.predictor, official.target):
        for parameter in module.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.02)
    ours.method.encoder.load_state_dict(official.encoder.state_dict())
    ours.method.predictor.load_state_dict(official.predictor.state_dict())
    ours.method.target.module.load_state_dict(official.target.state_dict())


@torch.no_grad()
def forward(official: Official, ours: Ours, batch) -> Iterator[tuple[str, float, float]]:
    """Patch tokens, context, target and predicted tokens; the official blocks come one after the other."""
    pictures, (seen, predicted), method = official.pictures(batch), official.masks(batch), ours.method
    clip, masks = batch.views[0], batch.masks[0]
    embedded = official.encoder.patch_embed(pictures) + official.encoder.pos_embed
    yield row("patch tokens with positions", embedded, method.encoder.embed(clip))
    context = method.encoder(clip, masks.context)
    yield row("context tokens", official.encoder(pictures, seen), context)
    tokens = method.target(clip)
    yield row("target tokens, unnormed", official.target(pictures), tokens)
    target = gather_tokens(F.layer_norm(tokens, tokens.shape[-1:]), masks.targets)  # (B, M, K', D)
    yield row("target tokens, normed", official.targets(pictures, seen, predicted), by_block(target))
    guess = official.predictor(official.encoder(pictures, seen), seen, predicted)
    yield row("predicted tokens", guess, by_block(method.predictor(context, masks)))


def by_block(tokens: Tensor) -> Tensor:
    """(B, M, K', D) -> (M B, K', D), the official order."""
    return tokens.transpose(0, 1).flatten(0, 1)


def backward(official: Official, ours: Ours, batch) -> Iterator[tuple[str, float, float]]:
    """Loss, gradients, and what optimiser and EMA make of one and the same gradient."""
    losses = official.loss(batch), ours.loss(batch)
    yield row("loss", *losses)
    for loss in losses:
        loss.backward()
    pairs = list(paired_parameters(official, ours))
    yield row("gradients", together(t.grad for _, t, _ in pairs), together(m.grad for _, _, m in pairs))
    for _, theirs, mine in pairs:
        mine.grad = theirs.grad.clone()  # Adam divides by the gradient's size: rounding would become a whole step
    official.lr.step()
    official.decay.step()
    values = {g["weight_decay"] for g in official.optimiser.param_groups} - {0}
    for group in ours.optimiser.param_groups:
        group["lr"] = official.optimiser.param_groups[0]["lr"]
        group["weight_decay"] = max(values) if group["decayed"] else 0.0
    official.optimiser.step()
    ours.optimiser.step()
    official.follow()
    ours.method.follow(0.0)
    yield row("weights after AdamW", together(t for _, t, _ in pairs), together(m for _, _, m in pairs))
    theirs, mine = (dict(side.named_parameters()) for side in (official.target, ours.method.target.module))
    yield row("target weights after EMA", together(theirs[name] for name in mine), together(mine.values()))


def together(tensors: Iterable[Tensor]) -> Tensor:
    """All values in one row."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@torch.no_grad()
def other_batches(official: Official, ours: Ours, setting: Setting) -> tuple[str, float, float]:
    """Loss on five other batches, the weights being what each side has made of the step."""
    batches = [draw(setting, seed) for seed in range(2, 7)]
    theirs, mine = (torch.stack([side.loss(batch) for batch in batches]) for side in (official, ours))
    return row("loss on 5 other batches", theirs, mine)


def paired_parameters(official: Official, ours: Ours) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Trained parameters of both sides by name."""
    for part, theirs in (("encoder", official.encoder), ("predictor", official.predictor)):
        mine = dict(ours.method.get_submodule(part).named_parameters())
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                yield f"{part}.{name}", parameter, mine[name]


def decay_differences(official: Official, ours: Ours) -> list[str]:
    """Names of the parameters that one side decays and the other does not."""
    theirs = {id(p) for g in official.optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    mine = {id(p) for g in ours.optimiser.param_groups if g["decayed"] for p in g["params"]}
    return [name for name, t, m in paired_parameters(official, ours) if (id(t) in theirs) != (id(m) in mine)]


def row(stage: str, theirs: Tensor, mine: Tensor) -> tuple[str, float, float]:
    """Stage, largest absolute difference, largest absolute value."""
    if theirs.shape != mine.shape:
        raise SystemExit(f"{stage}: shapes {tuple(theirs.shape)} and {tuple(mine.shape)}")
    theirs, mine = theirs.detach(), mine.detach()
    return stage, float((theirs - mine).abs().max()), float(theirs.abs().max())


def show(rows: list[tuple[str, float, float]], setting: Setting) -> None:
    table = Table(title=f"Ours minus official, {setting.model}/{setting.patch}, {setting.image} px, fp32")
    for name in ("stage", "largest difference", "largest value"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage, difference, scale in rows:
        table.add_row(stage, f"{difference:.1e}", f"{scale:.2e}")
    Console(width=80).print(table)
