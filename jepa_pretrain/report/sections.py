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
from jepa_pretrain.report.contents import Alarm, Pictures
from jepa_pretrain.report.tiles import enlarge, png

PROTOCOLS = {"linear": "Linear probe", "knn": "k-NN"}
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


def mask_tiles(pictures: Pictures, drawn: Masks, encoder: FrozenEncoder) -> str:
    """Pictures with the context bright and the targets outlined."""
    tiles = masks.draw(pictures.images[: len(drawn.context)], drawn, encoder.grid)
    figures = "".join(f"<figure>{_image(png(tile), 'masked picture')}</figure>" for tile in tiles)
    share = f"{drawn.context.shape[1]} of {encoder.grid.tokens} tokens are seen"
    return f"<div class='tiles'>{figures}</div><p class='soft'>{share}; {drawn.targets.shape[1]} target blocks.</p>"


def feature_pairs(pictures: Pictures, encoder: FrozenEncoder) -> str:
    """Pictures beside the colours of their features."""
    if encoder.grid.h * encoder.grid.w == 1:
        return missing("this encoder gives a single token per picture, so there is no map")
    shown = pictures.images[:SHOWN]
    maps = features.colours(encoder(shown), encoder.grid)
    pairs = [
        f"<figure class='pair'>{_image(png(enlarge(image)), 'picture')}{_image(png(features.tile(shade)), 'features')}"
        f"<figcaption>{html.escape(pictures.name(number))}</figcaption></figure>"
        for number, (image, shade) in enumerate(zip(shown, maps, strict=True))
    ]
    return f"<div class='pairs'>{''.join(pairs)}</div>"


def neighbour_rows(pictures: Pictures, encoder: FrozenEncoder) -> str:
    """Queries with their nearest neighbours; right or wrong by class where there are labels."""
    pooled = torch.cat([pool(encoder(part)) for part in pictures.images.split(BATCH)])
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
        picture = _image(png(enlarge(pictures.images[number])), name)
        figures.append(f"<figure>{picture}<figcaption class='{verdict}'>{html.escape(name)}</figcaption></figure>")
    return f"<div class='row'>{''.join(figures)}</div>"


def probe_table(found: list[dict[str, Any]], run: Path) -> str:
    """Every evaluation, best first within its protocol; baselines have a grey bar."""
    rows = []
    for number, one in enumerate(found):
        if number == 0 or found[number - 1]["protocol"] != one["protocol"]:
            title = PROTOCOLS.get(one["protocol"], one["protocol"])
            rows.append(f"<tr class='group'><td colspan='3'>{html.escape(title)}</td></tr>")
        rows.append(_evaluation(one, run))
    head = "<tr><th>encoder</th><th class='number'>top-1, % (interval)</th><th class='number'>pictures</th></tr>"
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
