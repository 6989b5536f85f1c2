"""The page: one HTML file which holds the tables and figures of a run, and names the file behind every number."""

import base64
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from restok.config import Params
from restok.experiments import Item, Tree, Trial
from restok.experiments.items import items
from restok.files import atomic_file
from restok.reporting.cells import count, number, spread
from restok.reporting.inputs import Inputs, table_of
from restok.reporting.measured import Row, checkpoints, chosen_guidance, lowest
from restok.reporting.run import Checkpoint, Record, chosen_candidate, fault, read, require, require_metric
from restok.reporting.tables.table import numeric

CALLED = {"class_accuracy": "class accuracy", "per_class_accuracy": "class accuracy by class", "psnr": "PSNR (dB)",
          "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}     # the other metrics bear the field's names


def report(inputs: Inputs, reports_dir: str | Path, out: str | Path) -> None:
    """Write the page of a run to `out`: self-contained HTML, pictures within.

    Reads the run's results and, from `reports_dir`, the files of the tables and figures. Those that show other trained models
    than the main run's may be missing: the page says how they are made. Raises ReportError, which names the file and how it
    is made, when another is.
    """
    tree, params, seeds = inputs.tree, inputs.params, checkpoints(inputs.tree, "fig7")
    best = lowest(seeds)
    chosen, firsts = best.first, [(row.trials[0], row.first) for row in seeds]
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        files("restok.reporting").joinpath("page.html.j2").read_text("utf-8"))
    shown, lacking = [], []
    for item in items(params):
        paths = [Path(reports_dir) / file for file in item.files]
        if tree.beyond_main(item) and not all(path.is_file() for path in paths):
            lacking.append((item.title, f"snakemake {paths[0].as_posix()}"))
        else:
            shown.append(_item(inputs, item, paths))
    page = template.render(
        name=tree.sheet.run,
        chosen=chosen,
        settings=_settings(tree, params, best),
        headline=_headline(best, len(seeds)),
        levels=require_metric(chosen.reconstruction, "codebook")["levels"],
        refused=_refused([e for _, e in firsts]),
        warnings=_warnings(tree, firsts),
        items=shown,
        lacking=lacking,
        parameters=params.model_dump_json(indent=2),
    )
    with atomic_file(out) as partial:
        partial.write_text(page, "utf-8")


def _settings(tree: Tree, params: Params, best: Row) -> list[tuple[str, str | int, str]]:
    """What was run: (what, value, file)."""
    chosen = best.first
    tokenizer, generator = chosen.tokenizer, chosen.generator
    guidance, search = chosen_guidance(tree, best.trials[0], chosen.label)
    manifest = read(tree.path("data") / "manifest.json")
    t, sampling = params.tokenizer, search or params.sampling.model_dump()
    start = f" from {guidance.start:g} of the {guidance.over} on" if guidance.schedule == "step" else ""
    settings = (f"{params.data.source} at {t.image_size} x {t.image_size} pixels; {t.latents} tokens in {len(t.levels)} "
                f"levels, {t.scales} image scales, codebook {t.codebook_size} x {t.codebook_dim}; seed {params.seed}")
    lines = [
        ("classes", str(len(manifest["splits"]["train"]["classes"])), manifest.path),
        ("tokenizer", f"{count(tokenizer['parameters'])} parameters, {tokenizer['step']} steps", tokenizer.path),
        ("generator", f"{count(generator['parameters'])} parameters, {generator['sampling_steps']} sampling steps",
         generator.path),
        ("guidance", f"{guidance.schedule}, at most {guidance.scale:g}{start}; top-k {sampling['top_k']}, "
         f"top-p {sampling['top_p']:g}", search.path if search else "all parameters, below"),
        ("features", f"{chosen.features}, weights sha256 {chosen.generation['features']['sha256']}", chosen.generation.path),
    ]
    if params.classifier:
        trained = read(tree.path("classifier") / "metrics.json")
        lines.append(("feature network", f"validation accuracy {_percent(trained['validation_accuracy'])} of {trained['n']}",
                     trained.path))
    for record in (chosen.reconstruction, chosen.generation):
        reference = record["reference"]
        lines.append((f"{record['protocol']} against", f"{reference['name']}, digest {reference['digest']}; n = {record['n']}",
                      record.path))
    return [("settings", settings, "all parameters, below"),
            *((what, text, Path(path).as_posix()) for what, text, path in lines)]


def _headline(best: Row, among: int) -> list[tuple[str, str, str]]:
    """The numbers of the best checkpoint, with its first seed: (what, value and interval, file). What was not measured is left
    out."""
    chosen, seeds = best.first, best.about["n_seeds"]
    reconstruction, generation = chosen.reconstruction, chosen.generation
    names = reconstruction["names"]
    codebook, sure = require_metric(reconstruction, "codebook"), reconstruction["intervals"]["codebook"]
    best_of = f"{chosen.label}, step {chosen.step}: the lowest generation {chosen.distance} of {among} checkpoints"
    if seeds > 1:
        best_of += f", as the mean of {seeds} seeds; below, seed {best.trials[0].seed}"
    return [
        ("best checkpoint", best_of, generation.path.as_posix()),
        *_rows("reconstruction", reconstruction, "class_accuracy", names["distance"], names["kernel"], names["score"],
               "psnr", "ssim", "ms_ssim", "lpips"),
        ("codebook: entries used, over all levels", _sure(codebook["usage"], sure["usage"], _percent),
         reconstruction.path.as_posix()),
        ("codebook: entropy (bits)", _sure(codebook["entropy"], sure["entropy"]), reconstruction.path.as_posix()),
        *_rows("samples", generation, "class_accuracy", *generation["names"].values(), "precision", "recall"),
    ]


def _rows(what: str, record: Record, *metrics: str) -> Iterator[tuple[str, str, str]]:
    for metric in metrics:
        if record["metrics"][metric] is not None:
            show = _percent if metric == "class_accuracy" else number
            text = _sure(record["metrics"][metric], record["intervals"][metric], show)
            yield f"{what}: {CALLED.get(metric, metric)}", text, record.path.as_posix()


def _sure(value: float, interval: Sequence[float] | None, show: Callable[[float], str] = number) -> str:
    """A value and, in brackets, its interval where it has one."""
    return f"{show(value)} [{spread(interval, show)}]" if interval else show(value)


def _refused(measured: Sequence[Checkpoint]) -> dict[str, list[str]]:
    """What was not measured and why, each reason of a protocol once, with the files that carry it."""
    refused = {}
    for record in (record for e in measured for record in (e.reconstruction, e.generation)):
        metrics = {}
        for metric, reason in record["refused"].items():
            metrics.setdefault(reason, []).append(CALLED.get(metric, metric))
        for reason, names in metrics.items():
            refused.setdefault(f"{record['protocol']}, {', '.join(names)}: {reason}", []).append(record.path.as_posix())
    return refused


def _warnings(tree: Tree, measured: Sequence[tuple[Trial, Checkpoint]]) -> dict[str, list[str]]:
    """Every warning of the evaluations and of the guidance chosen for them, once, with the files that carry it."""
    warnings = {}
    for trial, e in measured:
        _, search = chosen_guidance(tree, trial, e.label)
        for record in (e.reconstruction, e.generation, *([chosen_candidate(search)] if search else [])):
            for warning in record["warnings"]:
                warnings.setdefault(warning, []).append(record.path.as_posix())
    return warnings


def _item(inputs: Inputs, item: Item, paths: Sequence[Path]) -> dict:
    """One table or figure as the template takes it: title, caption, notes, files, `image` (base64) and `table` (a frame with
    its `own` rows and `numeric` columns), or None."""
    shown = {"name": item.name, "title": item.title, "caption": item.caption, "image": None, "table": None, "own": (),
             "notes": [], "numeric": (), "sources": "", "files": [require(path).as_posix() for path in paths]}
    for path in paths:
        if path.suffix == ".png":
            shown["image"] = base64.b64encode(path.read_bytes()).decode()
            with Image.open(path) as picture:
                if "Source" not in picture.info:
                    raise fault(path, "does not name the files it was drawn from")
                shown["sources"] = picture.info["Source"]
    if table := table_of(inputs, item):
        shown |= {"table": table.shown, "notes": table.notes, "own": table.own, "numeric": numeric(table.shown)}
    return shown


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
