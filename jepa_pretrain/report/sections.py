"""The sections of the page, each a piece of HTML; a section without data is one sentence that says why."""

import html
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from jepa_pretrain.contracts import Masks
from jepa_pretrain.evals.features import LAYERS
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.ops import pool
from jepa_pretrain.report import curves, features, masks, neighbours
from jepa_pretrain.report.contents import Pictures
from jepa_pretrain.report.outcomes import Alarm, Decoded
from jepa_pretrain.report.tiles import SIDE, enlarge, png, strip

PROTOCOLS = {"linear": "Linear probe", "attentive": "Attentive probe", "knn": "k-NN"}
CLIPS = 4  # that are shown, where each is a row of frames
ENDS = 2  # frames of a clip among neighbours, the first and a later one
SHOWN = 8
TOLD = 20  # alarms that are spelt out
BATCH = 64


def section(title: str, words: str, body: str) -> str:
    """A heading, a sentence on what is shown, and the thing itself."""
    return f"<section><h2>{html.escape(title)}</h2><p class='soft'>{html.escape(words)}</p>{body}</section>"


def missing(reason: str) -> str:
    """A sentence in place of a picture."""
    return f"<p>Not shown: {html.escape(reason)}.</p>"


def curve_figures(columns: dict[str, curves.Series]) -> str:
    """All panels for which something was logged."""
    drawn = {panel.title: curves.draw(panel, columns) for panel in curves.PANELS}
    figures = [
        f"<figure><img alt='{title} by step' src='{address}'><figcaption>{title}</figcaption></figure>"
        for title, address in drawn.items()
        if address
    ]
    absent = [title.lower() for title, address in drawn.items() if not address]
    note = f"<p class='soft'>Never logged: {', '.join(absent)}.</p>" if absent else ""
    return f"<div class='curves'>{''.join(figures)}</div>{note}"


def alarm_list(alarms: list[Alarm], columns: dict[str, curves.Series]) -> str:
    """The loss and the rank with the alarms' steps marked, and what each alarm says; nothing where there are none."""
    if not alarms:
        return ""
    steps = sorted({alarm.step for alarm in alarms})
    drawn = {panel.title: curves.draw(panel, columns, steps) for panel in curves.PANELS[:2]}
    figures = [
        f"<figure><img alt='{title} with the alarms marked' src='{address}'><figcaption>{title}</figcaption></figure>"
        for title, address in drawn.items()
        if address
    ]
    lines = [f"<li>Step {alarm.step}: {html.escape(alarm.message)}</li>" for alarm in alarms[:TOLD]]
    more = f"<p class='soft'>And {len(alarms) - TOLD} more, in alarms.jsonl.</p>" if len(alarms) > TOLD else ""
    body = f"<div class='curves'>{''.join(figures)}</div><ul>{''.join(lines)}</ul>{more}"
    kinds = Counter(alarm.kind for alarm in alarms)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return section("Alarms", f"What went wrong while this run trained ({counts}); dashed lines mark the steps.", body)


def mask_tiles(pictures: Pictures, drawn: list[Masks], encoder: FrozenEncoder) -> str:
    """What each masker leaves to be seen: of pictures with the targets outlined, of clips a row of frames for each."""
    said = " ".join(
        f"{one.context.shape[1]} of {encoder.grid.tokens} tokens are seen; {one.targets.shape[1]} target blocks."
        for one in drawn
    )
    if encoder.grid.t > 1:
        rows = [Masks(*(part[:CLIPS] for part in one)) for one in drawn]
        each = [[Masks(c[None], t[None]) for c, t in zip(*one, strict=True)] for one in rows]
        films = [masks.film(clip, list(of), encoder.grid) for clip, *of in zip(pictures.clips, *each, strict=False)]
        return f"<div class='films'>{''.join(map(_film, films))}</div><p class='soft'>{said}</p>"
    parts = []
    for one in drawn:
        tiles = masks.draw(pictures.clips[: len(one.context), :, 0], one, encoder.grid)
        parts += [f"<figure>{_image(png(tile), 'masked picture')}</figure>" for tile in tiles]
    return f"<div class='tiles'>{''.join(parts)}</div><p class='soft'>{said}</p>"


def feature_pairs(pictures: Pictures, encoder: FrozenEncoder) -> str:
    """Pictures beside the colours of their features; of clips a row of frames above a row of features."""
    if encoder.grid.h * encoder.grid.w == 1:
        return missing("this encoder gives a single token per picture, so there is no map")
    steps = encoder.grid.t
    shown = pictures.clips[: SHOWN if steps == 1 else CLIPS]
    maps = [features.tile(shade) for shade in features.colours(encoder(shown), encoder.grid)]
    names = [html.escape(pictures.name(number)) for number in range(len(shown))]
    if steps > 1:
        films = [
            _film(_under(strip(clip, steps), map_), name) for clip, map_, name in zip(shown, maps, names, strict=True)
        ]
        return f"<div class='films'>{''.join(films)}</div>"
    pairs = [
        f"<figure class='pair'>{_image(png(enlarge(clip[:, 0])), 'picture')}{_image(png(map_), 'features')}"
        f"<figcaption>{name}</figcaption></figure>"
        for clip, map_, name in zip(shown, maps, names, strict=True)
    ]
    return f"<div class='pairs'>{''.join(pairs)}</div>"


def _under(frames: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Two rows of tiles, which may differ by the pixels that a tile is short of its size."""
    wide, step = frames.shape[2], maps.shape[2]
    return torch.cat([frames, maps[:, :, torch.arange(wide) * step // wide]], dim=1)


def _film(picture: torch.Tensor, name: str = "") -> str:
    drawn = f"<img class='film' alt='frames of a clip' src='{png(picture)}'>"
    return f"<figure>{drawn}<figcaption>{name}</figcaption></figure>"


def neighbour_rows(pictures: Pictures, encoder: FrozenEncoder) -> str:
    """Queries with their nearest neighbours; right or wrong by class where there are labels."""
    pooled = torch.cat([pool(encoder(part)) for part in pictures.clips.split(BATCH)])
    rows = neighbours.find(pooled, pictures.label, SHOWN)
    if not rows:
        return missing(f"only {len(pictures.label)} pictures")
    return "".join(_row(row, pictures) for row in rows)


def _row(row: neighbours.Row, pictures: Pictures) -> str:
    figures = []
    for number in (row.query, *row.neighbours):
        verdict = ""
        if number != row.query and pictures.label[row.query] >= 0:
            verdict = "right" if pictures.label[number] == pictures.label[row.query] else "wrong"
        name = pictures.name(number)
        clip = pictures.clips[number]
        still = clip.shape[1] == 1
        picture = _image(png(enlarge(clip[:, 0])), name) if still else _film_of(clip, name)
        figures.append(f"<figure>{picture}<figcaption class='{verdict}'>{html.escape(name)}</figcaption></figure>")
    return f"<div class='row'>{''.join(figures)}</div>"


def _film_of(clip: torch.Tensor, name: str) -> str:
    picture = png(strip(clip, ENDS, SIDE // ENDS))
    return f"<img class='film' alt='{html.escape(name)}' src='{picture}'>"


def decoded_table(found: list[Decoded], run: Path) -> str:
    """What `eval decode` read from each layer."""
    factors = list(dict.fromkeys(name for one in found for name in one.scores))
    units = {name: f"{name}, {'% right' if name == 'shape' else 'R2'}" for name in factors}
    head = "".join(f"<th class='number'>{html.escape(unit)}</th>" for unit in units.values())
    rows = []
    for one in found:
        cells = [
            f"{one.scores[name]:.{1 if name == 'shape' else 3}f}" if name in one.scores else "" for name in factors
        ]
        who = html.escape(f"{named({'encoder': one.encoder}, run)}: {one.layer}")
        rows.append(f"<tr><td>{who}</td>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><tr><th>states of</th>{head}</tr>{''.join(rows)}</table>"


def probe_table(found: list[dict[str, Any]], run: Path) -> str:
    """Every evaluation, best first within its protocol; baselines have a grey bar."""
    rows = []
    for number, one in enumerate(found):
        if number == 0 or found[number - 1]["protocol"] != one["protocol"]:
            title = PROTOCOLS.get(one["protocol"], one["protocol"])
            rows.append(f"<tr class='group'><td colspan='3'>{html.escape(title)}</td></tr>")
        rows.append(_evaluation(one, run))
    head = "<tr><th>encoder</th><th class='number'>top-1, % (interval)</th><th class='number'>samples</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _evaluation(one: dict[str, Any], run: Path) -> str:
    low, high = one["interval"]
    kind = "bar base" if is_baseline(one) else "bar"
    return (
        f"<tr><td>{html.escape(named(one, run))}<div class='soft'>{html.escape(words(one))}</div>"
        f"<div class='{kind}' style='width:{one['top1']:.1f}%'></div></td>"
        f"<td class='number'>{one['top1']:.2f}<div class='soft'>{low:.1f} &ndash; {high:.1f}</div></td>"
        f"<td class='number'>{one.get('test_samples', '')}</td></tr>"
    )


def named(one: dict[str, Any], run: Path) -> str:
    """An evaluated encoder in words; the run's own is called so."""
    name = one["encoder"]
    if Path(name.removeprefix("random:")).absolute() == (run / "export").absolute():
        return "the same architecture, untrained" if name.startswith("random:") else "this run's encoder"
    return "raw pixels" if name == "pixels" else name


def words(one: dict[str, Any]) -> str:
    """What the protocol chose, in words."""
    shots = f", {one['shots']} per class" if one.get("shots") else ""
    if one["protocol"] == "knn":
        return f"k = {one.get('k')}, {one.get('layers')} layer{'s' * (one.get('layers') != 'last')}"
    chosen = one.get("chosen") or {}
    if one["protocol"] == "attentive":
        return f"learning rate {chosen.get('lr')}"
    kind = "batch norm + linear" if chosen.get("batch_norm") else "linear"
    layers = f"last {LAYERS} layers" if chosen.get("layers") == "last four" else "last layer"
    return f"{layers}, {kind}{shots}"


def is_baseline(one: dict[str, Any]) -> bool:
    """Whether nothing was learned there: raw pixels or fresh weights."""
    return bool(one.get("untrained")) or one["encoder"] == "pixels"


def no_better(found: list[dict[str, Any]], run: Path) -> list[str]:
    """Protocols in which this run's encoder is not clearly above its untrained twin."""
    notes = []
    for protocol, title in PROTOCOLS.items():
        by_name = {named(one, run): one for one in reversed(found) if one["protocol"] == protocol}
        own, twin = by_name.get("this run's encoder"), by_name.get("the same architecture, untrained")
        if own and twin and own["interval"][0] <= twin["interval"][1]:
            notes.append(
                f"{title}: the encoder ({own['top1']:.1f} %) is not clearly better than the same architecture "
                f"untrained ({twin['top1']:.1f} %): train longer, or look at the curves for collapse."
            )
    return notes


def _image(address: str, alt: str) -> str:
    return f"<img class='pixels' alt='{html.escape(alt)}' src='{address}'>"
