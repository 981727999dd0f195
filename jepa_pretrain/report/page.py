"""One self-contained page about a run: what was trained, how it went, what the encoder sees, what it is worth."""

import html
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.report import contents, curves, landscape, outcomes, sections
from jepa_pretrain.report.contents import Pictures
from jepa_pretrain.report.sections import missing, section
from jepa_pretrain.report.style import STYLE

ABOUT = {
    "Masks": "Bright: what the context encoder sees. Outlined: the blocks whose features it has to predict. "
    "Dark: hidden. Of clips: the frames, and below them what each masker leaves to be seen.",
    "Features": "The first three principal components of the token features, shared by all pictures, as red, green and "
    "blue: equal colours mean similar features. Of clips: frames above, features of their steps below.",
    "Nearest neighbours": "Left a picture, right the five most similar ones by the cosine of the pooled features. "
    "Of clips two frames are shown.",
    "Decoded factors": "What a ridge regression reads from the frozen states of one moment of rendered videos.",
    "Energies": "How badly the model explains a future: of clips as they went on, and of the same beginnings with how "
    "another clip went on. By level and number of its steps; an AUROC of 1 tells them apart always, .5 is chance. "
    "Another clip has another background too, which is the easier half of it.",
    "Frozen evaluation": "The encoder is frozen; the interval is what the number of test pictures leaves open.",
}


def report(run: str, out: str | None = None, data: str | None = None) -> None:
    """Write one HTML page about a run: curves, masks, feature maps, nearest neighbours, results.

    Args:
        run: A run folder, as `fit` leaves it: `config.yaml`, `metrics.csv`, `export/`, `eval/*.json`.
        out: The page to write; RUN/report.html without it.
        data: Shards whose pictures are shown; the recipe's validation shards without it.
    """
    folder = Path(run)
    if not any((folder / name).exists() for name in ("config.yaml", "metrics.csv", "export", "checkpoints")):
        raise UserError(f"{run} is no run folder: neither config.yaml nor metrics.csv, export or checkpoints in it")
    page = Path(out) if out else folder / "report.html"
    if page.is_dir():
        page = page / "report.html"
    content = compose(folder, data)
    part = page.with_name(page.name + ".part")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(content, encoding="utf-8")
        os.replace(part, page)
    except OSError as error:
        raise UserError(f"cannot write {page}: {error}") from error
    size = f"{len(content) / 2**20:.1f} MiB"
    Console(highlight=False).print(f"Report of {run}: {page} ({size}, opens offline)", soft_wrap=True)


def compose(folder: Path, data: str | None) -> str:
    """The whole page as text.

    Args:
        folder: The run.
        data: Shards to show; None for the recipe's own.
    """
    config = contents.recipe(folder)
    columns = curves.read(folder / "metrics.csv") if (folder / "metrics.csv").is_file() else {}
    found, damaged = outcomes.results(folder)
    read = outcomes.decoded(folder)
    encoder, why_no_encoder = _try(lambda: contents.encoder(folder))
    pictures, why_no_pictures = None, why_no_encoder
    if encoder:
        pictures, why_no_pictures = _pictures(config, data, encoder)
    warnings = curves.warnings(columns) + sections.no_better(found, folder) + damaged
    parts = [
        _header(folder, config, columns, encoder),
        "".join(f"<p class='warn' role='alert'>{html.escape(text)}</p>" for text in warnings),
        sections.alarm_list(outcomes.alarms(folder), columns),
        section("Frozen evaluation", ABOUT["Frozen evaluation"], _results(found, folder)),
        *([section("Decoded factors", ABOUT["Decoded factors"], sections.decoded_table(read, folder))] if read else []),
        section("Training", _pace(columns), sections.curve_figures(columns) if columns else missing("no metrics.csv")),
        *_energies(config, encoder, data),
        *_seen(config, encoder, pictures, why_no_pictures),
        "<footer class='soft'>Written by jepa-pretrain report.</footer>",
    ]
    return _document(folder.absolute().name, "\n".join(parts))


def _seen(config: dict[str, Any], encoder: FrozenEncoder | None, pictures: Pictures | None, reason: str) -> list[str]:
    """The sections that need pictures and the encoder."""
    if encoder is None or pictures is None:
        return [section(name, ABOUT[name], missing(reason)) for name in ("Masks", "Features", "Nearest neighbours")]
    count = min(sections.SHOWN, len(pictures.label))
    drawn, why_no_masks = _try(lambda: contents.masks(config, encoder.grid, count))
    masked = sections.mask_tiles(pictures, drawn, encoder) if drawn else missing(why_no_masks)
    return [
        section("Masks", ABOUT["Masks"], masked),
        section("Features", ABOUT["Features"], sections.feature_pairs(pictures, encoder)),
        section("Nearest neighbours", ABOUT["Nearest neighbours"], sections.neighbour_rows(pictures, encoder)),
    ]


def _energies(config: dict[str, Any], encoder: FrozenEncoder | None, data: str | None) -> list[str]:
    """The energy landscape of a hierarchy; nothing for other encoders."""
    if encoder is None or not isinstance(encoder.encoder, Hierarchy):
        return []
    hierarchy = encoder.encoder

    def drawn() -> str:
        source = data or contents.source_of(config)
        return landscape.energies(hierarchy, *contents.clips(source, config, hierarchy.image_size, hierarchy.frames))

    body, reason = _try(drawn)
    return [section("Energies", ABOUT["Energies"], body or missing(reason))]


def _pictures(config: dict[str, Any], data: str | None, encoder: FrozenEncoder) -> tuple[Pictures | None, str]:
    """Pictures of the shards that the user named, or of the recipe's; the user's own mistake is an error."""
    if data:
        return contents.pictures(data, encoder.image_size, contents.span(config, encoder.frames)), ""

    def read() -> Pictures:
        return contents.pictures(contents.source_of(config), encoder.image_size, contents.span(config, encoder.frames))

    return _try(read)


def _try(make: Callable[[], Any]) -> tuple[Any, str]:
    """What `make` gives, or None and the reason."""
    try:
        return make(), ""
    except UserError as error:
        return None, str(error).rstrip(".")


def _results(found: list[dict[str, Any]], folder: Path) -> str:
    if found:
        return sections.probe_table(found, folder)
    command = f"jepa-pretrain eval linear {folder}/export TRAIN TEST --out {folder}/eval/linear.json"
    return missing(f"no result in {folder}/eval; `{command}` writes one")


def _pace(columns: dict[str, curves.Series]) -> str:
    speed = sorted(value for _, value in columns.get("train/images_per_second", []))
    pace = f" Median speed {speed[len(speed) // 2]:,.0f} images/s." if speed else ""
    return "A falling loss alone proves nothing here: watch the rank and the probes." + pace


def _header(
    folder: Path, config: dict[str, Any], columns: dict[str, curves.Series], encoder: FrozenEncoder | None
) -> str:
    """What was trained, on what, with which code."""
    known = encoder.provenance if encoder else {}
    trainer = _named(config.get("trainer"))
    hardware = [str(trainer[key]) for key in ("accelerator", "devices", "num_nodes", "precision") if trainer.get(key)]
    steps = max((series[-1][0] for series in columns.values()), default=None)
    facts = {
        "method": known.get("method") or _class(config.get("model")),
        "encoder": encoder
        and f"{_describe(encoder)}; grid {encoder.grid.t}x{encoder.grid.h}x{encoder.grid.w}, width {encoder.width}",
        "steps": known.get("step") or steps,
        "data": _named(known.get("data")).get("train") or _arguments(config.get("data")).get("train"),
        "code": known.get("git"),
        "trainer": hardware and " · ".join(hardware) + "  (accelerator, devices, nodes, precision as set)",
        "versions": ", ".join(f"{name} {number}" for name, number in _named(known.get("versions")).items()),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(str(fact))}</dd>" for name, fact in facts.items() if fact)
    return f"<header><h1>{html.escape(folder.absolute().name)}</h1><dl>{rows}</dl></header>"


def _describe(encoder: FrozenEncoder) -> str:
    arguments = ", ".join(f"{k}={v}" for k, v in encoder.config["args"].items() if k not in ("mean", "std"))
    return f"{encoder.config['class']}({arguments})"


def _class(spec: object) -> str:
    return str(spec.get("class_path", "")).rsplit(".", 1)[-1] if isinstance(spec, dict) else ""


def _arguments(spec: object) -> dict[str, Any]:
    return _named(_named(spec).get("init_args"))


def _named(value: object) -> dict[str, Any]:
    """Names and values; none where a stranger's file holds something else in their place."""
    return value if isinstance(value, dict) else {}


def _document(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>"
    )
