"""The page: one HTML file which holds the tables and figures of a run, and names the file behind every number."""

import base64
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from restok.config import Params
from restok.files import atomic_file
from restok.reporting.run import Evaluation, Record, best, chosen_candidate, evaluations, fault, read, require, require_metric
from restok.reporting.tables import count, number, read_csv, spread

ITEMS = {   # by name, in the order of the page: its files in the reports' folder, its title, its caption
    "table1": (("csv",), "Table 1. Systems compared",
               "The paper's Table 1, its rows as printed (Inception features, ImageNet 256x256; blank: not published), and "
               "this run's best checkpoint as the last row, with 95 % intervals. Rows whose features differ do not compare."),
    "fig7": (("png", "csv"), "Fig. 7. Reconstruction and generation over the tokenizer's training",
             "The paper's Fig. 7: both distances against tokenizer iterations, here with their 95 % intervals. There, "
             "reconstruction improves throughout and generation is best at 750k (rFID 1.28, gFID 2.34)."),
    "table6": (("csv",), "Table 6. Guidance",
               "The paper's Table 6: the guidance chosen for each tokenizer checkpoint by the lowest distance among the "
               "candidates, with its 95 % interval. The start ratio belongs to the step schedule; 0 turns top-k or top-p off."),
    "fig5": (("png",), "Fig. 5. Prefixes and attention",
             "The paper's Fig. 5: reconstructions from the first tokens, and the share of attention that each latent level "
             "gives to each image scale, S1 the coarsest. There, the first 16 tokens attend to S1 and S2, later ones to S3 "
             "and S4."),
    "fig6": (("png",), "Fig. 6. Samples",
             "The paper's Fig. 6: class-conditional samples, here the first ones of each class, not chosen."),
    "codebook": (("png", "csv"), "Codebook by level",
                 "Use and entropy (Eq. 5-6) of the codebook by latent level, at the best checkpoint. The paper reports that "
                 "all of its ablations use 100 % of the codebook, over all levels together."),
    "table9": (("csv",), "Table 9. Nested dropout",
               "The paper's Table 9: how often nested dropout keeps how many tokens, exactly, from the parameters."),
}
CALLED = {"class_accuracy": "class accuracy", "per_class_accuracy": "class accuracy by class", "psnr": "PSNR (dB)",
          "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}     # the other metrics bear the field's names


def report(run_dir: str | Path, reports_dir: str | Path, params: Params, name: str, out: str | Path) -> None:
    """Write the page of run `name` to `out`: self-contained HTML, pictures within.

    Reads the run's JSON files and, from `reports_dir`, the CSV and PNG files of `ITEMS`. Raises ReportError, which names the
    file and how it is made, when one is missing.
    """
    run_dir = Path(run_dir)
    measured, chosen = evaluations(run_dir, params), best(run_dir, params)
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        files("restok.reporting").joinpath("page.html.j2").read_text("utf-8"))
    page = template.render(
        name=name,
        chosen=chosen,
        settings=_settings(run_dir, params, chosen),
        headline=_headline(chosen, len(measured)),
        levels=require_metric(chosen.reconstruction, "codebook")["levels"],
        refused=_refused(measured),
        warnings=_warnings(run_dir, measured),
        items=[_item(Path(reports_dir), item, *content) for item, content in ITEMS.items()],
        parameters=params.model_dump_json(indent=2),
    )
    with atomic_file(out) as partial:
        partial.write_text(page, "utf-8")


def _settings(run_dir: Path, params: Params, chosen: Evaluation) -> list[tuple[str, str, str]]:
    """What was run: (what, value, file)."""
    tokenizer = read(run_dir / "tokenizer" / chosen.label / "metrics.json")
    generator = read(run_dir / "generator" / chosen.label / "metrics.json")
    guidance = read(run_dir / "guidance" / f"{chosen.label}.json")
    manifest = read(run_dir / "data" / "manifest.json")
    t, found = params.tokenizer, guidance["chosen"]
    start = f" from {found['start']:g} of the steps on" if found["schedule"] == "step" else ""
    settings = (f"{params.data.source} at {t.image_size} x {t.image_size} pixels; {t.latents} tokens in {len(t.levels)} "
                f"levels, {t.scales} image scales, codebook {t.codebook_size} x {t.codebook_dim}; seed {params.seed}")
    rows = [
        ("classes", len(manifest["splits"]["train"]["classes"]), manifest.path),
        ("tokenizer", f"{count(tokenizer['parameters'])} parameters, {tokenizer['step']} steps", tokenizer.path),
        ("generator", f"{count(generator['parameters'])} parameters, {generator['sampling_steps']} sampling steps",
         generator.path),
        ("guidance", f"{found['schedule']}, at most {found['scale']:g}{start}; top-k {guidance['top_k']}, "
         f"top-p {guidance['top_p']:g}", guidance.path),
        ("features", f"{chosen.features}, weights sha256 {chosen.generation['features']['sha256']}", chosen.generation.path),
    ]
    if params.classifier:
        trained = read(run_dir / "classifier" / "metrics.json")
        rows.append(("feature network", f"validation accuracy {_percent(trained['validation_accuracy'])} of {trained['n']}",
                     trained.path))
    for record in (chosen.reconstruction, chosen.generation):
        rows.append((f"{record['protocol']} against", f"{record['reference']['name']}, digest {record['reference']['digest']}; "
                     f"n = {record['n']}", record.path))
    return [("settings", settings, "all parameters, below"), *((what, value, path.as_posix()) for what, value, path in rows)]


def _headline(chosen: Evaluation, checkpoints: int) -> list[tuple[str, str, str]]:
    """The numbers of the best checkpoint: (what, value and interval, file). What was not measured is left out."""
    reconstruction, generation = chosen.reconstruction, chosen.generation
    names = reconstruction["names"]
    codebook, sure = require_metric(reconstruction, "codebook"), reconstruction["intervals"]["codebook"]
    best_of = f"{chosen.label}, step {chosen.step}: the lowest generation {chosen.distance} of {checkpoints} checkpoints"
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


def _warnings(run_dir: Path, measured: list[Evaluation]) -> dict[str, list[str]]:
    """Every warning of the evaluations and of the guidance chosen for them, once, with the files that carry it."""
    found = {}
    for e in measured:
        guidance = chosen_candidate(read(run_dir / "guidance" / f"{e.label}.json"))
        for record in (e.reconstruction, e.generation, guidance):
            for warning in record["warnings"]:
                found.setdefault(warning, []).append(record.path.as_posix())
    return found


def _item(folder: Path, name: str, kinds: tuple[str, ...], title: str, caption: str) -> dict:
    """One table or figure as the template takes it: title, caption, files, `image` (base64) and `table` (a frame), or None."""
    paths = {kind: folder / f"{name}.{kind}" for kind in kinds}
    item = {"name": name, "title": title, "caption": caption, "image": None, "table": None, "sources": "",
            "files": [path.as_posix() for path in paths.values()]}
    if "png" in paths:
        item["image"] = base64.b64encode(require(paths["png"]).read_bytes()).decode()
        with Image.open(paths["png"]) as picture:
            if "Source" not in picture.info:
                raise fault(paths["png"], "does not name the files it was drawn from")
            item["sources"] = picture.info["Source"]
    if "csv" in paths:
        item["table"] = read_csv(paths["csv"]).map(_short)
    return item


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(cell: str) -> str:
    """A cell of a CSV for the eye: long decimals are rounded, the file keeps them whole."""
    whole, point, decimals = cell.partition(".")
    return number(float(cell)) if point and len(decimals) > 4 and (whole.lstrip("-") + decimals).isdigit() else cell
