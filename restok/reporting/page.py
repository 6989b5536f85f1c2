"""The page: one HTML file which holds the tables and figures of a run, and names the file behind every number."""

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from restok.config import Params
from restok.experiments import Item, Tree
from restok.experiments.items import items
from restok.experiments.records import Prepared, TrainedClassifier
from restok.files import atomic_file
from restok.reporting.cells import count, number, span
from restok.reporting.inputs import Inputs, table_of
from restok.reporting.measured import Row, checkpoints, chosen_guidance, lowest
from restok.reporting.provenance import Input, Node, Walk, line
from restok.reporting.run import Record, chosen_candidate, fault, read, require, require_metric
from restok.reporting.tables.table import Table
from restok.stages.search import among, cost, drawn

CALLED = {"class_accuracy": "class accuracy", "per_class_accuracy": "class accuracy by class", "psnr": "PSNR (dB)",
          "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}     # the other metrics bear the field's names
Line = tuple[str, str | int, Path | str]                            # what, its value, the file that backs it
NUMBER = re.compile(r"[-+]?\d")


class Sources:
    """What the page's numbers were measured from, an entry for each row and checkpoint, which has an anchor."""

    def __init__(self) -> None:
        self._anchors: dict[str, str] = {}
        self._nodes: dict[Path, Node] = {}

    def anchor(self, source: str) -> str | None:
        """Of a row's files, as its column `source` names them; None of rows that were not measured here."""
        if not all(Path(name).suffix == ".json" and Path(name).is_file() for name in source.split("; ")):
            return None
        return self._anchors.setdefault(source, f"from-{len(self._anchors) + 1}")

    def entries(self) -> list[dict]:
        """Each with its `id`, the results, and what these were made of, as lines with their depth."""
        found = []
        for source, anchor in self._anchors.items():
            told, lines = set(), []
            for name in source.split("; "):
                top = Walk(Path(name), check=False, nodes=self._nodes).top
                lines += self._lines(Input({}, top), told, 0)
            found.append({"id": anchor, "name": source, "lines": lines})
        return found

    def _lines(self, named: Input, told: set[int], depth: int) -> Iterator[dict]:
        """What is told already is left out: an entry is short."""
        node = named.node
        if node.path is None or id(node) in told:
            return
        told.add(id(node))
        yield line(node, named.digests) | {"depth": depth}
        for each in node.inputs:
            yield from self._lines(each, told, depth + 1)


def report(inputs: Inputs, reports_dir: str | Path, out: str | Path) -> list[Item]:
    """Write the page of a run to `out`: self-contained HTML, pictures within. Returns the tables and figures that it shows.

    Reads the run's results and, from `reports_dir`, the files of the tables and figures. Those that show other trained models
    than the main run's may be missing: the page says how they are made. Raises ReportError, which names the file and how it
    is made, when another is.
    """
    tree, params, seeds = inputs.tree, inputs.params, checkpoints(inputs.tree, "fig7")
    best, behind = lowest(seeds), Sources()
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        files("restok.reporting").joinpath("page.html.j2").read_text("utf-8"))
    shown, lacking = [], []
    for item in items(params, tree.sheet):
        paths = [Path(reports_dir) / file for file in item.files]
        if tree.beyond_main(item) and not all(path.is_file() for path in paths):
            lacking.append((item.title, paths[0]))
        else:
            shown.append(_shown(inputs, item, paths, behind))
    headline = [(what, value, file, behind.anchor(best.about["source"])) for what, value, file in _headline(best, len(seeds))]
    page = template.render(
        name=tree.sheet.run,
        chosen=best.first,
        levels=require_metric(best.first.reconstruction, "codebook")["levels"],
        settings=[(*line, None) for line in _settings(tree, params, best)],
        headline=headline,
        refused=_refused(seeds),
        warnings=_warnings(tree, seeds),
        items=shown,
        lacking=lacking,
        parameters=params.model_dump_json(indent=2),
        sources=behind.entries(),
    )
    with atomic_file(out) as partial:
        partial.write_text(page, "utf-8")
    return [each["item"] for each in shown]


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
    ]
    if params.classifier:
        trained = read(tree.path("classifier") / "metrics.json", TrainedClassifier)
        lines.append(("feature network", f"validation accuracy {_percent(trained['validation_accuracy'])} of {trained['n']}",
                     trained.path))
    for record in chosen.records:
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
        *_lines("reconstruction", reconstruction, "class_accuracy", names["distance"], names["kernel"], names["score"],
                "psnr", "ssim", "ms_ssim", "lpips"),
        ("codebook: entries used, over all levels", _sure(*chosen.value("usage"), _percent), reconstruction.path),
        ("codebook: entropy (bits)", _sure(*chosen.value("entropy")), reconstruction.path),
        *_lines("samples", generation, "class_accuracy", *generation["names"].values(), "precision", "recall"),
    ]


def _lines(what: str, record: Record, *metrics: str) -> Iterator[Line]:
    for metric in metrics:
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
    """A table or figure as the template takes it; `picture` in base64, `cells` with the place that each number links to."""
    picture, sources, table = None, "", table_of(inputs, item)
    for path in map(require, paths):
        if path.suffix == ".png":
            picture = base64.b64encode(path.read_bytes()).decode()
            try:
                with Image.open(path) as image:
                    image.load()
            except OSError as error:
                raise fault(path, f"not a whole picture ({error})") from None
            if "Source" not in image.info:
                raise fault(path, "does not name the files it was drawn from")
            sources = image.info["Source"]
    cells = table and list(_cells(table, behind))
    return {"item": item, "table": table, "cells": cells, "files": paths, "picture": picture, "sources": sources}


def _cells(table: Table, behind: Sources) -> Iterator[list[tuple[str, str | None]]]:
    """The rows that a reader sees, each cell with the anchor of what it was measured from, if it is a number that was."""
    named = list(table.frame["source"]) if "source" in table.frame and len(table.frame) == len(table.shown) else None
    for index, row in enumerate(table.shown.itertuples(index=False)):
        anchor = behind.anchor(named[index]) if named else None
        yield [(cell, anchor if NUMBER.match(cell) and "paper" not in title else None)
               for cell, title in zip(row, table.shown.columns, strict=True)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
