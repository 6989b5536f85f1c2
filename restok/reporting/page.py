"""The page: one HTML file which holds the tables and figures of a run, and names the file behind every number."""

import base64
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from restok.config import Params
from restok.experiments import Sheet
from restok.files import atomic_file
from restok.reporting.items import ITEMS
from restok.reporting.measured import Row, checkpoints, lowest
from restok.reporting.run import (
    Evaluation,
    Record,
    chosen_candidate,
    evaluations,
    fault,
    guidance,
    read,
    require,
    require_metric,
)
from restok.reporting.tables import Published, count, number, read_csv, spread
from restok.reporting.tables.orders import agreement
from restok.reporting.tables.reader import VIEWS, numeric, view

CALLED = {"class_accuracy": "class accuracy", "per_class_accuracy": "class accuracy by class", "psnr": "PSNR (dB)",
          "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}     # the other metrics bear the field's names


def report(run_dir: str | Path, reports_dir: str | Path, params: Params, sheet: Sheet, published: Published,
           orders_csv: str | Path, out: str | Path) -> None:
    """Write the page of a run to `out`: self-contained HTML, pictures within.

    Reads the run's JSON files and, from `reports_dir`, the files of `ITEMS`. Raises ReportError, which names the file and how
    it is made, when one is missing.
    """
    run_dir, name = Path(run_dir), sheet.run
    measured, seeds = evaluations(run_dir, params), checkpoints(run_dir, sheet, "fig7")
    best = lowest(seeds)
    chosen = best.first
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        files("restok.reporting").joinpath("page.html.j2").read_text("utf-8"))
    items = [_item(Path(reports_dir), item, *content) for item, content in ITEMS.items()
             if item != "guidance" or params.sampling.guidance is None]          # what is set was not searched
    curve = next(item for item in items if item["name"] == "fig7")
    orders = agreement("fig7", seeds, orders_csv, published.rows("fig7"))
    curve["notes"] += [f"The paper's order, of {checkpoint}: {found}." for checkpoint, found in orders.items()]
    page = template.render(
        name=name,
        chosen=chosen,
        settings=_settings(run_dir, params, chosen),
        headline=_headline(best, len(seeds)),
        levels=require_metric(chosen.reconstruction, "codebook")["levels"],
        refused=_refused(measured),
        warnings=_warnings(run_dir, params, measured),
        items=items,
        parameters=params.model_dump_json(indent=2),
    )
    with atomic_file(out) as partial:
        partial.write_text(page, "utf-8")


def _settings(run_dir: Path, params: Params, chosen: Evaluation) -> list[tuple[str, str, str]]:
    """What was run: (what, value, file)."""
    tokenizer, generator = chosen.tokenizer, chosen.generator
    found, search = guidance(run_dir / "guidance" / f"{chosen.label}.json", params)
    manifest = read(run_dir / "data" / "manifest.json")
    t, sampling = params.tokenizer, search or params.sampling.model_dump()
    start = f" from {found.start:g} of the {found.over} on" if found.schedule == "step" else ""
    settings = (f"{params.data.source} at {t.image_size} x {t.image_size} pixels; {t.latents} tokens in {len(t.levels)} "
                f"levels, {t.scales} image scales, codebook {t.codebook_size} x {t.codebook_dim}; seed {params.seed}")
    lines = [
        ("classes", len(manifest["splits"]["train"]["classes"]), manifest.path),
        ("tokenizer", f"{count(tokenizer['parameters'])} parameters, {tokenizer['step']} steps", tokenizer.path),
        ("generator", f"{count(generator['parameters'])} parameters, {generator['sampling_steps']} sampling steps",
         generator.path),
        ("guidance", f"{found.schedule}, at most {found.scale:g}{start}; top-k {sampling['top_k']}, "
         f"top-p {sampling['top_p']:g}", search.path if search else "all parameters, below"),
        ("features", f"{chosen.features}, weights sha256 {chosen.generation['features']['sha256']}", chosen.generation.path),
    ]
    if params.classifier:
        trained = read(run_dir / "classifier" / "metrics.json")
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


def _sure(found: float, interval: Sequence[float] | None, show: Callable[[float], str] = number) -> str:
    """A value and, in brackets, its interval where it has one."""
    return f"{show(found)} [{spread(interval, show)}]" if interval else show(found)


def _refused(measured: list[Evaluation]) -> dict[str, list[str]]:
    """What was not measured and why, each reason of a protocol once, with the files that carry it."""
    found = {}
    for record in (record for e in measured for record in (e.reconstruction, e.generation)):
        metrics = {}
        for metric, reason in record["refused"].items():
            metrics.setdefault(reason, []).append(CALLED.get(metric, metric))
        for reason, names in metrics.items():
            found.setdefault(f"{record['protocol']}, {', '.join(names)}: {reason}", []).append(record.path.as_posix())
    return found


def _warnings(run_dir: Path, params: Params, measured: list[Evaluation]) -> dict[str, list[str]]:
    """Every warning of the evaluations and of the guidance chosen for them, once, with the files that carry it."""
    found = {}
    for e in measured:
        _, search = guidance(run_dir / "guidance" / f"{e.label}.json", params)
        for record in (e.reconstruction, e.generation, *([chosen_candidate(search)] if search else [])):
            for warning in record["warnings"]:
                found.setdefault(warning, []).append(record.path.as_posix())
    return found


def _item(folder: Path, name: str, kinds: tuple[str, ...], title: str, caption: str) -> dict:
    """One table or figure as the template takes it: title, caption, notes, files, `image` (base64) and `table` (a frame with
    its `own` rows and `numeric` columns), or None."""
    paths = {kind: require(folder / f"{name}.{kind}") for kind in kinds}
    item = {"name": name, "title": title, "caption": caption, "image": None, "table": None, "own": (), "notes": [],
            "numeric": (), "sources": "", "files": [path.as_posix() for path in paths.values()]}
    if "png" in paths:
        item["image"] = base64.b64encode(paths["png"].read_bytes()).decode()
        with Image.open(paths["png"]) as picture:
            if "Source" not in picture.info:
                raise fault(paths["png"], "does not name the files it was drawn from")
            item["sources"] = picture.info["Source"]
    if name in VIEWS:
        found = view(name, read_csv(paths["csv"]))
        item |= {"table": found.frame, "notes": list(found.notes), "own": found.own, "numeric": numeric(found.frame)}
    return item


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
