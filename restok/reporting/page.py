"""The page: one HTML file which holds the tables and figures of a run, and names the file behind every number."""

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from restok.config import Params
from restok.experiments import Item, Tree
from restok.experiments.artifacts import behind as behind_all
from restok.experiments.items import items
from restok.experiments.records import Prepared, TrainedClassifier
from restok.files import atomic_file
from restok.reporting.captions import measured_on
from restok.reporting.cells import count, number, span
from restok.reporting.costs import costs
from restok.reporting.inputs import Inputs, table_of
from restok.reporting.measured import Row, checkpoints, chosen_guidance, lowest
from restok.reporting.run import Record, chosen_candidate, fault, read, require, require_metric
from restok.reporting.sources import Sources
from restok.reporting.tables.table import Table
from restok.stages.search import among, cost, drawn

CALLED = {"class_accuracy": "class accuracy", "per_class_accuracy": "class accuracy by class", "psnr": "PSNR (dB)",
          "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}     # the other metrics bear the field's names
NETWORK = "feature network"                                         # of the lines on what was run, the one that was measured
Line = tuple[str, str | int, Path | str]                            # what, its value, the file that backs it
NUMBER = re.compile(r"[-+]?\d")
NAMED = re.compile(r"(Table|Fig\.) \d+")        # as the paper names them
TEMPLATES = Environment(loader=PackageLoader("restok.reporting", "."), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
SHARP = 1.5                                  # pixels of a figure on one of the page


def report(inputs: Inputs, reports_dir: str | Path, out: str | Path) -> list[Item]:
    """Write the page of a run to `out`: self-contained HTML, pictures within. Returns the tables and figures that it shows.

    Reads the run's results and, from `reports_dir`, the files of the tables and figures. Those that show other trained models
    than the main run's may be missing: the page says how they are made. Raises ReportError, which names the file and how it
    is made, when another is.
    """
    tree, params, seeds = inputs.tree, inputs.params, checkpoints(inputs.tree, "fig7")
    best, behind = lowest(seeds), Sources(tree)
    shown, lacking = [], []
    for item in items(params, tree.sheet):
        paths = [Path(reports_dir) / file for file in item.files]
        if tree.beyond_main(item) and not all(path.is_file() for path in paths):
            lacking.append((item.title, paths[0]))
        else:
            shown.append(_shown(inputs, item, paths, behind))
    made, anchor = [each["item"] for each in shown], behind.anchor(best.about["source"])
    page = TEMPLATES.get_template("page.html.j2").render(
        name=tree.sheet.run,
        chosen=best.first,
        run=behind.run(best.first.reconstruction.path),
        levels=require_metric(best.first.reconstruction, "codebook")["levels"],
        settings=[(*line, behind.anchor(behind.network) if line[0] == NETWORK else None)
                  for line in _settings(tree, params, best)],
        headline=[(*line, anchor) for line in _headline(best, len(seeds))],
        costs=costs(behind_all(tree, params, made)),
        refused=_refused(seeds),
        warnings=_warnings(tree, seeds),
        items=shown,
        lacking=lacking,
        parameters=params.model_dump_json(indent=2),
        sources=behind.entries(),
    )
    with atomic_file(out) as partial:
        partial.write_text(page, "utf-8")
    return made


def _settings(tree: Tree, params: Params, best: Row) -> list[Line]:
    """What was run."""
    chosen = best.first
    tokenizer, generator = chosen.tokenizer, chosen.generator
    guidance, search = chosen_guidance(tree, best.trials[0], chosen.label)
    manifest = read(tree.path("data") / "manifest.json", Prepared)
    t, sampling = params.tokenizer, search or params.sampling.model_dump()
    start = f" from {guidance.start:g} of the {guidance.over} on" if guidance.schedule == "step" else ""
    lines = [
        ("settings", f"{params.data.source} at {t.image_size} x {t.image_size} pixels; {t.latents} tokens in {len(t.levels)} "
         f"levels, {t.scales} image scales, codebook {t.codebook_size} x {t.codebook_dim}; seed {params.seed}",
         "all parameters, below"),
        ("classes", str(len(manifest["splits"]["train"]["classes"])), manifest.path),
        ("tokenizer", f"{count(tokenizer['parameters'])} parameters, {tokenizer['step']} steps", tokenizer.path),
        ("generator", f"{count(generator['parameters'])} parameters, {generator['sampling_steps']} sampling steps",
         generator.path),
        ("guidance", f"{guidance.schedule}, at most {guidance.scale:g}{start}; top-k {sampling['top_k']}, "
         f"top-p {sampling['top_p']:g}", search.path if search else "all parameters, below"),
        *([("search for guidance", f"{among(search)}; {cost(drawn(search))}", search.path)] if search else []),
        ("features", f"{chosen.features}, weights sha256 {chosen.generation['features']['sha256']}", chosen.generation.path),
        *((f"features {kind}", f"{one['name']}, weights sha256 {one['sha256']}", chosen.generation.path)
          for kind, one in (chosen.generation.get("also") or {}).items()),
    ]
    if params.classifier:
        trained = read(tree.path("classifier") / "metrics.json", TrainedClassifier)
        lines.append((NETWORK, f"validation accuracy {_percent(trained['validation_accuracy'])} of {trained['n']}",
                     trained.path))
    for record in (chosen.reconstruction, chosen.generation):
        reference = record["reference"]
        lines.append((f"{record['protocol']} against", f"{reference['name']}, digest {reference['digest']}; n = {record['n']}",
                      record.path))
    return lines


def _headline(best: Row, among: int) -> list[Line]:
    """The numbers of the best checkpoint, with its first seed. What was not measured is left out."""
    chosen, seeds = best.first, best.about["n_seeds"]
    reconstruction, generation = chosen.reconstruction, chosen.generation
    names = reconstruction["names"]
    best_of = f"{chosen.label}, step {chosen.step}: the lowest generation {chosen.metric('gfid')} of {among} checkpoints"
    if seeds > 1:
        best_of += f", as the mean of {seeds} seeds; below, seed {best.trials[0].seed}"
    return [
        ("best checkpoint", best_of, generation.path),
        *_lines("reconstruction", reconstruction, "class_accuracy", names["distance"], names["kernel"], names.get("sliced"),
                names["score"], *_also(reconstruction), "psnr", "ssim", "ms_ssim", "lpips"),
        ("codebook: entries used, over all levels", _sure(*chosen.value("usage"), _percent), reconstruction.path),
        ("codebook: entropy (bits)", _sure(*chosen.value("entropy")), reconstruction.path),
        *_lines("samples", generation, "class_accuracy", *generation["names"].values(), "precision", "recall",
                *_also(generation)),
        *_lines("samples without guidance", chosen.unguided, "class_accuracy", *generation["names"].values(), "precision",
                "recall", *_also(chosen.unguided)),
    ]


def _also(record: Record) -> list[str]:
    """The distances by further networks, and what several of them say together."""
    endings = [*(f"-{kind}" for kind in record.get("also") or ()), "FDr6"]
    return [name for ending in endings for name in record["metrics"] if name.endswith(ending)]


def _lines(what: str, record: Record, *metrics: str | None) -> Iterator[Line]:
    for metric in filter(None, metrics):                  # earlier results have fewer
        if record["metrics"][metric] is not None:
            show = _percent if metric == "class_accuracy" else number
            text = _sure(record["metrics"][metric], record["intervals"][metric], show)
            yield f"{what}: {CALLED.get(metric, metric)}", text, record.path


def _sure(value: float, interval: Sequence[float] | None, show: Callable[[float], str] = number) -> str:
    """A value and, in brackets, its interval where it has one."""
    return f"{show(value)} [{span(interval, show)}]" if interval else show(value)


def _refused(seeds: Sequence[Row]) -> dict[str, list[Path]]:
    """What was not measured and why, each reason of a protocol once, with the files that carry it."""
    refused = defaultdict(list)
    for record in (record for row in seeds for record in row.first.records):
        by_reason = defaultdict(list)
        for metric, reason in record["refused"].items():
            by_reason[reason].append(CALLED.get(metric, metric))
        for reason, names in by_reason.items():
            refused[f"{record['protocol']}, {', '.join(names)}: {reason}"].append(record.path)
    return refused


def _warnings(tree: Tree, seeds: Sequence[Row]) -> dict[str, list[Path]]:
    """Every warning of the evaluations and of the guidance chosen for them, once, with the files that carry it."""
    warnings = defaultdict(list)
    for row in seeds:
        _, search = chosen_guidance(tree, row.trials[0], row.first.label)
        for record in (*row.first.records, *([chosen_candidate(search)] if search else [])):
            for warning in record["warnings"]:
                warnings[warning].append(record.path)
    return warnings


def _shown(inputs: Inputs, item: Item, paths: Sequence[Path], behind: Sources) -> dict:
    """A table or figure as the template takes it; `cells` with the place that each number links to."""
    table = table_of(inputs, item)
    pictures = [_picture(path) for path in map(require, paths) if path.suffix == ".png"]
    named = NAMED.match(item.title)
    return {"item": item, "short": named[0] if named else item.title, "measured": measured_on(inputs, item), "table": table,
            "view": behind.view(item), "cells": table and list(_cells(table, item, behind)), "files": paths,
            "picture": pictures[0] if pictures else None}


def _picture(path: Path) -> dict:
    """In base64, with its size on the page and the files that it was drawn from."""
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        raise fault(path, f"not a whole picture ({error})") from None
    if "Source" not in image.info:
        raise fault(path, "does not name the files it was drawn from")
    width, height = (round(pixels / SHARP) for pixels in image.size)
    return {"data": base64.b64encode(path.read_bytes()).decode(), "width": width, "height": height,
            "sources": image.info["Source"]}


def _cells(table: Table, item: Item, behind: Sources) -> Iterator[list[tuple[str, str | None]]]:
    """The rows that a reader sees, each cell with the anchor of what it was measured from, if it is a number that was."""
    named = list(table.frame["source"]) if "source" in table.frame and len(table.frame) == len(table.shown) else None
    for index, row in enumerate(table.shown.itertuples(index=False)):
        anchor = behind.anchor(named[index], item) if named else None
        yield [(cell, anchor if NUMBER.match(cell) and "paper" not in title else None)
               for cell, title in zip(row, table.shown.columns, strict=True)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
