"""The whole examination, its table's rows and its faults."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from restok import config
from restok.errors import RestokError
from restok.experiments import work
from restok.experiments.places import Tree
from restok.experiments.trials import Sheet
from restok.files import write_json
from restok.networks.classifier import SmallClassifier
from restok.stages.doctor import disk, things
from restok.stages.doctor.hours import Hours, draws, hours, of_task
from restok.stages.doctor.speed import FULL, WITHIN, Speeds, measure

# What decides how much memory a measured part takes; of those that are not here, sampling.batch_size.
BOUNDS = {"tokenizer": "tokenizer_training.micro_batch", "generator": "generator_training.micro_batch",
          "encode": "codes.batch_size", "judge": "evaluation.batch_size",
          "score": "evaluation.batch_size", "compare": "evaluation.batch_size"}


class NotReadyError(RestokError):
    """What keeps a run from its end, a line each with the remedy."""


class Examination(NamedTuple):
    findings: list[things.Finding]
    needs: list[disk.Need]
    hours: list[Hours]
    results: dict[str, float | None]        # hours of each, by its path
    estimate: Literal["GPU", "CPU", "counted"]     # what all hours are scaled from
    device: str


def examine(params: config.Params, sheet: Sheet, out: Path | None, show: Callable[[Examination], None],
            within: float = WITHIN, site: Sequence[things.Finding] = ()) -> Examination:
    """Look for all that a run and the rows of its sheet need, and estimate disk and hours from a measured run of at most
    `within` seconds; `site` was found before. Writes it as JSON. Raises NotReadyError, when it is shown and written, for what
    is missing."""
    tree, runs = Tree(Path("results", sheet.run), sheet), Path("runs", sheet.run)
    findings, counts = things.images(params, tree)
    findings = [*site, *findings, *things.weights(params, tree), *things.references(params.evaluation)]
    main, every = (work.results(tree, params, trials) for trials in (work.own(tree), sheet.trials))
    needs, table, each, speeds = [], [], {}, Speeds("none", None, {}, {})
    if counts is None:
        findings.append(things.Finding("disk and hours", "not known", "not estimated, since the number of images is not known"))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            needs = disk.needs(main, every, counts, _classifier(params, Path(scratch)))
        tasks = [list(work.tasks(made, counts)) for made in (main, every)]
        speeds = measure(params, draws(tasks[1]), within)
        table = hours(*tasks, speeds)
        each = {path.as_posix(): of_task(work.task(*result, counts), speeds) for path, result in every.items()}
        places = tree.root, runs
        findings += [_disk(needs, disk.free(places), disk.standing(places), places), _memory(speeds)]
    estimate = "counted" if speeds.no_gpu else "CPU" if speeds.memory is None else "GPU"
    found = Examination(findings, needs, table, each, estimate, speeds.device)
    if out is not None:
        write_json(out, _as_json(found, sheet.run, work.digest(params, sheet)))
    show(found)
    if faults := [f"{finding.what}: {finding.says}" for finding in findings if finding.state == "fault"]:
        raise NotReadyError("\n".join(faults))
    return found


def _classifier(params: config.Params, scratch: Path) -> Path | None:
    """A feature network of the parameters' sizes, where they train one."""
    if params.classifier is None:
        return None
    SmallClassifier(params.generator.classes, params.classifier.channels).save(scratch)
    return scratch


def _disk(needs: list[disk.Need], free: int, standing: int, places: tuple[Path, Path]) -> things.Finding:
    """What stands already is taken for a part of what is needed."""
    main, sheet = (sum(getattr(need, which) for need in needs) - standing for which in ("main", "sheet"))
    where = f"{_gb(free)} are free for {places[0]} and {places[1]}"
    if main > free:
        return things.Finding("disk", "fault", f"{_gb(main)} are needed for the run itself beside what stands, but {where}; "
                              "make room, or let the folders results and runs be links to a larger disk")
    more = "" if sheet <= free else f"; all rows of experiments.tsv need {_gb(sheet)}, more than that"
    return things.Finding("disk", "ok", f"{_gb(max(main, 0))} are needed for the run itself, {where}{more}")


def _memory(speeds: Speeds) -> things.Finding:
    """Whether the GPU holds a micro-batch of both trainings, and the batches of all else."""
    if speeds.memory is None:
        return things.Finding("GPU memory", "not known", f"not measured: there is no GPU here ({speeds.device})")
    if full := next((name for name, why in speeds.faults.items() if why == FULL), None):
        setting = BOUNDS.get(full, "sampling.batch_size")
        more = f", or {full}_training.checkpointing: true" if setting.endswith("micro_batch") else ""
        return things.Finding("GPU memory", "fault", f"{setting}: {FULL}, of {_gb(speeds.memory)}; set a smaller one{more}")
    if late := next((kind for kind in ("tokenizer", "generator") if kind in speeds.faults), None):
        return things.Finding("GPU memory", "not known", f"not measured: {speeds.faults[late]}")
    said = [f"{_gb(speeds.speeds[kind].memory)} for {speeds.speeds[kind].batch} images of the {kind}'s training"
            for kind in ("tokenizer", "generator")]
    return things.Finding("GPU memory", "ok", f"{', '.join(said)}, of {_gb(speeds.memory)}")


def _gb(size: int) -> str:
    return f"{size / 1e9:,.3g} GB"


def _as_json(found: Examination, run: str, settings: str) -> dict:
    return {"kind": "doctor", "run": run, "device": found.device, "settings": settings, "estimate": found.estimate,
            **{name: [row._asdict() for row in getattr(found, name)] for name in ("findings", "needs", "hours")},
            "results": found.results}
