"""A run as the stages write it, made up: what the tests of tables, figures and the page read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from restok.config import Params
from restok.config.load import load_params
from restok.experiments import ITEMS, Feed, Sheet, Tree, Trial, load_sheet
from restok.experiments.trials import MAIN
from restok.metrics.features import metric_names
from restok.reporting.inputs import Inputs, table_of
from restok.reporting.published import Published
from restok.reporting.tables.table import Table

ROOT = Path(__file__).parent.parent
CHECKPOINTS = {"early": 10, "middle": 20, "late": 30}
DISTANCES = {"early": 30.0, "middle": 18.123456, "late": 19.5}     # of generation: the middle one is best


def run_params() -> Params:
    """Parameters whose checkpoints are the run's."""
    checkpoints = "tokenizer_training.checkpoints={early: 10, middle: 20, late: 30}"
    return load_params(ROOT / "params" / "imagenet256.yaml", [checkpoints])


def run_sheet(params: Params, *items: str, seeds: int = 1) -> Sheet:
    """One row that feeds some items: the run's own, its further seeds in folders beside it."""
    names = [MAIN, *(f"main.{seed}" for seed in range(1, seeds))]
    return Sheet("run", [Trial("main", name, (), params.model_copy(update={"seed": seed}),
                               tuple(Feed(item, "", None) for item in items), None, None) for seed, name in enumerate(names)])


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def result(protocol: str, names: dict, metrics: dict, refused: dict, **changes) -> dict:
    """What `restok evaluate` writes. A number's interval is 10 % about it; `refused` takes metrics away, with the reason."""
    plain = {name: [0.9 * found, 1.1 * found] for name, found in metrics.items() if isinstance(found, float)}
    nothing = dict.fromkeys(refused)
    return {
        "protocol": protocol, "n": 80, "metrics": metrics | nothing, "intervals": plain | nothing, "refused": refused,
        "names": names, "interval": "95 %, for the chance of these n images", "seed": 0, "warnings": [],
        "features": {"kind": "digits", "name": "digits classifier", "sha256": "ab", "dims": 64, "resize": "none",
                     "batch_size": 8},
        "samples": {"name": "ours", "digest": "ef", "size": [8, 8], "classes": 2, "balanced": True, "kept": 80},
        "rounding": "rounded to 8 bits", "originals": None, "likeness": {}, "neighbours": 3, "made": [], "score": "one split",
        "reference": {"name": "training split", "digest": "cd", "n": 90, "size": [8, 8], "rounding": "as stored",
                      "published": []}} | changes


def write_evaluations(run: Path, label: str, kind: str = "digits", refused: dict | None = None,
                      numbers: tuple[float, float, float] | None = None, trial: str = MAIN, **changes) -> None:
    """The results of a checkpoint; `refused` is of the generation, `changes` also of that without guidance, whose gFID is
    twice the one of `numbers`: rFID, entropy and gFID."""
    rfid, entropy, gfid = numbers or (4.0, 11.5, DISTANCES[label])
    names = metric_names(kind)
    levels = [{"level": 1, "tokens": 1, "used": 40, "usage": 40 / 8192, "entropy": 5.0, "dead": 8152},
              {"level": 2, "tokens": 127, "used": 4096, "usage": 0.5, "entropy": 11.0, "dead": 4096}]
    reconstruction = result(
        "reconstruction", names | {"distance": f"r{names['distance']}"},
        {f"r{names['distance']}": rfid, names["kernel"]: 0.03, names["sliced"]: 9.0, names["score"]: 8.0,
         "class_accuracy": 0.875, "psnr": 20.0, "ssim": 0.5,
         "codebook": {"used": 4096, "usage": 0.5, "dead": 4096, "entropy": entropy, "perplexity": 2**entropy,
                      "levels": levels}},
        {"ms_ssim": "the images are smaller than its five scales", "lpips": "evaluation.lpips is false"},
        n=60, warnings=["few images"])
    reconstruction["intervals"]["codebook"] = {
        "usage": [0.4, 0.6], "entropy": [entropy - 0.25, entropy + 0.25], "perplexity": [2435, 3444],
        "levels": [{"usage": [0.004, 0.006], "entropy": [4.5, 5.5]}, {"usage": [0.45, 0.55], "entropy": [10.5, 11.5]}]}
    home = run / "evaluation" / trial / label
    write(home / "reconstruction.json", reconstruction)
    others = {"spatial": 6.0, "kernel": 0.02, "sliced": 5.0, "score": 7.5}
    metrics = {names["distance"]: gfid, **{names[role]: found for role, found in others.items() if role in names},
               "precision": 0.71, "recall": 0.6, "class_accuracy": 0.625}
    write(home / "generation.json", result("generation", names, metrics, refused or {}, **changes))
    write(home / "unguided.json", result("generation", names, metrics | {names["distance"]: 2 * gfid}, {}, **changes))


def candidate(schedule: str, scale: float, start: float, distance: float, n: int = 20) -> dict:
    """One of a search's candidates, as `restok search-guidance` writes them."""
    return {"schedule": schedule, "scale": scale, "start": start, "n": n, "metrics": {"FD-digits": distance},
            "intervals": {"FD-digits": [distance - 2, distance + 2]}, "refused": {}, "warnings": [f"a {schedule} warning"]}


def write_two_rounds(run: Path, label: str) -> Path:
    """A search whose second round turned the order of the first about; one candidate has no distance. Returns its file."""
    unmeasured = candidate("linear", 9.0, 0.0, 0.0) | {
        "metrics": {"FD-digits": None}, "intervals": {"FD-digits": None}, "refused": {"FD-digits": "why"}}
    path = run / "guidance" / "main" / f"{label}.json"
    write(path, {
        "chosen": {"schedule": "linear", "scale": 3.0, "start": 0.0}, "top_k": 0, "top_p": 0.95, "metric": "FD-digits",
        "candidates": [candidate("constant", 1.0, 0.0, 40.0), candidate("step", 2.0, 0.25, 21.0),
                       candidate("linear", 3.0, 0.0, 23.0), unmeasured],
        "finalists": [candidate("step", 2.0, 0.25, 16.0, 50), candidate("linear", 3.0, 0.0, 15.0, 50)]})
    return path


def write_run(folder: Path, trial: str = MAIN) -> Path:
    """All that a run's reports are made from; returns `folder`."""
    rng = np.random.default_rng(0)
    write(folder / "data" / "manifest.json", {"splits": {"train": {"classes": ["zero", "one"]}}})
    for label, step in CHECKPOINTS.items():
        write(folder / "tokenizer" / trial / label / "metrics.json", {"step": step, "parameters": 1_234_567})
        write(folder / "generator" / trial / label / "metrics.json", {"parameters": 84_512, "sampling_steps": 6})
        candidates = [candidate("constant", 1.0, 0.0, 40.0), candidate("step", 2.0, 0.25, 21.0)]
        write(folder / "guidance" / trial / f"{label}.json", {
            "chosen": {"schedule": "step", "scale": 2.0, "start": 0.25}, "top_k": 0, "top_p": 0.95, "metric": "FD-digits",
            "candidates": candidates})
        write_evaluations(folder, label, trial=trial)
    for stage in ("panel", "samples"):
        (folder / stage / trial).mkdir(parents=True)
    attention = rng.random((4, 3, 2), dtype=np.float32)
    attention[:2, :, 0] = np.nan                                   # the coarse scale comes with the third layer
    np.savez(folder / "panel" / trial / "middle.npz", originals=rng.integers(0, 256, (2, 8, 8, 3), np.uint8),
             prefixes=rng.integers(0, 256, (2, 3, 8, 8, 3), np.uint8), psnr=8 + rng.random((2, 3)), kept=np.array([1, 2, 4]),
             attention=attention)
    np.savez(folder / "samples" / trial / "middle.npz", arr_0=rng.integers(0, 256, (9, 8, 8, 3), np.uint8),
             labels=np.arange(9) % 2)
    return folder


def write_experiments(results: Path, sheet: Sheet, numbers: Callable[[Trial, str], tuple[float, float, float]]) -> Path:
    """What all trials of a sheet leave in `results`, each stage where the sheet says; returns `results`."""
    tree = Tree(results, sheet)
    write(results / "data" / "manifest.json", {"splits": {"train": {"classes": ["zero", "one"]}}})
    write(results / "classifier" / "metrics.json", {"validation_accuracy": 0.96875, "n": 64})
    for trial in reversed(sheet.trials):                           # of shared files, the first trial's stay
        for label in trial.labels:
            measured = results / "both"
            write_evaluations(measured, label, numbers=numbers(trial, label))
            for stage in ("reconstruction", "generation", *(["unguided"] if tree.unguided(trial, label) else [])):
                path = tree.path(stage, trial, label)
                path.parent.mkdir(parents=True, exist_ok=True)
                (measured / "evaluation" / "main" / label / path.name).rename(path)
            write(tree.path("tokenizer", trial, label) / "metrics.json",
                  {"step": trial.params.tokenizer_training.checkpoints.get(label), "parameters": 1_234_567})
            write(tree.path("generator", trial, label) / "metrics.json",
                  {"parameters": 84_512, "sampling_steps": len(trial.params.generator.groups)})
            for weights, found in ((trial.tokenizer, trial.params.tokenizer), (trial.generator, trial.params.generator)):
                if weights:
                    write(Path(weights) / "config.json", found.model_dump(mode="json"))
            candidates = [candidate("constant", 1.0, 0.0, 40.0), candidate("step", 2.0, 0.25, 21.0)]
            write(tree.path("guidance", trial, label), {
                "chosen": {"schedule": "step", "scale": 2.0, "start": 0.25}, "top_k": 0, "top_p": 0.95, "metric": "FD-digits",
                "candidates": candidates})
    return results


def write_reports(folder: Path) -> Path:
    """Files of every table and figure, as the page takes them: figures are a blank each, of another size. Returns `folder`."""
    folder.mkdir(parents=True)
    for size, (name, item) in enumerate(ITEMS.items(), start=1):
        for file in item.files:
            (folder / file).write_text("checkpoint\n")
        if item.kind != "table":
            source = PngInfo()
            source.add_text("Source", f"results/{name}.json")
            Image.new("RGB", (size, size)).save(folder / f"{name}.png", pnginfo=source)
    return folder


def experiments(*lines: str, folder: Path | None = None, seeds: int = 2, main_seeds: int = 1, changes: tuple = ()) -> Sheet:
    """The repository's experiments on the demo, ablations with `seeds` seeds, and rows of one's own, written into `folder`;
    `changes` of the parameter file."""
    sheet = None
    if lines:
        sheet = folder / "experiments.tsv"
        sheet.write_text("\n".join([(ROOT / "params" / "experiments.tsv").read_text().rstrip(), *lines]) + "\n")
    return load_sheet(ROOT / "params" / "demo.yaml", [f"experiments.ablation_seeds={seeds}",
                                                          f"experiments.main_seeds={main_seeds}", *changes], sheet)


def numbers(trial: Trial, label: str) -> tuple[float, float, float]:
    """rFID, entropy and gFID: the second seed is 2 % above the first, and 750k the best checkpoint of the main run."""
    more = 1.02 if trial.seed == 10087 else 1.0
    gfid = {"baseline": 60.0, "restok": 38.0, "pooling_1": 38.1, "pooling_4": 44.0, "main": 25.0}.get(trial.id, 46.0)
    return 8.0 / trial.params.tokenizer.scales * more, 7.0 - 0.5 * (trial.id == "restok"), (gfid - 5 * (label == "750k")) * more


def inputs(results: Path, sheet: Sheet, params: Params | None = None, orders: Path | None = None,
           switches: Path | None = None) -> Inputs:
    """What tables and figures of some results are made from; by themselves the repository's orders and switches."""
    folder = ROOT / "params"
    return Inputs(Tree(results, sheet), params or load_params(folder / "demo.yaml"), Published(folder / "published.csv"),
                  orders or folder / "orders.csv", switches or folder / "release_switches.csv")


def made(item: str, *given, **changes) -> Table:
    """A table as the reports make it, of `inputs`."""
    return table_of(inputs(*given, **changes), ITEMS[item])
