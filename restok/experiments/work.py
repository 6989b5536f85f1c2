"""What the workflow makes for a parameter file, each result once, and how many images go through each of them."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from restok.config import Params
from restok.config.load import canonical_json
from restok.experiments.places import STAGES, Tree
from restok.experiments.trials import MAIN, Sheet, Trial

SHOWN = 8                                # images of Fig. 5, and of each class in Fig. 6, which shows fewer classes: a bound


class Counts(NamedTuple):
    """Images of the splits, and bytes of both together."""

    train: int
    validation: int
    size: int
    known: bool                     # False: assumed, for want of the images


IMAGENET = Counts(1_281_167, 50_000, 1_331_167 * 110_000, known=False)       # about 110 kB an image
DIGITS = Counts(1_437, 360, 1_797 * 300, known=False)


class Result(NamedTuple):
    """A result that the workflow makes once, by the settings of the first row that needs it."""

    stage: str
    params: Params
    label: str | None               # the checkpoint; None: of what all rows share


Results = dict[Path, Result]


class Draw(NamedTuple):
    """How samples are drawn: 'all' or a number of next-token predictions, and whether guidance doubles the rows of a batch."""

    name: str
    ntp: int | str
    guided: bool


class Task(NamedTuple):
    """Images that go through models in one step of the chain, each in the seconds of some parts."""

    verb: str
    parts: tuple[str | Draw, ...]
    images: int
    params: Params


def digest(params: Params, sheet: Sheet) -> str:
    """Of all that work follows from: the settings, and what the rows change."""
    rows = [[trial.name, trial.own, trial.tokenizer, trial.generator, trial.feeds] for trial in sheet.trials]
    settings = canonical_json(params, *type(params).model_fields)
    return hashlib.sha256(json.dumps([settings, rows]).encode()).hexdigest()


def assumed(params: Params) -> Counts:
    """How many images there are, where nobody has counted them."""
    return DIGITS if params.data.source == "digits" else IMAGENET


def results(tree: Tree, params: Params, trials: Iterable[Trial]) -> Results:
    """What all rows share, and what is trained, encoded and measured for some rows of the sheet."""
    names = ["validation"] + ["published"] * (params.evaluation.reference is not None)
    found: Results = {tree.path("data"): Result("data", params, None)}
    found |= {tree.path("reference", name=name): Result("reference", params, None) for name in names}
    for trial in trials:
        for path, result in _of(tree, trial):
            found.setdefault(path, result)
    return found


def _of(tree: Tree, trial: Trial) -> Iterator[tuple[Path, Result]]:
    measured, stages = trial.labels, ["reconstruction"]
    searched = not (trial.tokenizer or trial.params.sampling.guidance)
    if not trial.tokenizer:
        until = max(map(trial.every_label.index, measured), default=-1)
        for label in trial.every_label[:until + 1]:
            yield tree.path("tokenizer", trial, label), Result("tokenizer", trial.params, label)
        stages += ["codes", "generator"]
    if trial.generator or not trial.tokenizer:
        stages.append("generation")
    for label in measured:
        for stage in (*stages, *(["unguided"] if tree.unguided(trial, label) else [])):
            yield tree.path(stage, trial, label), Result(stage, trial.params, label)
        if searched:
            yield from ((path, Result("candidate", trial.params, label)) for path in tree.candidates(trial, label))
            yield from ((path, Result("finalist", trial.params, label)) for path in tree.finalists(trial, label))


def own(tree: Tree) -> list[Trial]:
    """The rows that are the parameter file's own run."""
    return [trial for trial in tree.sheet.trials if trial.name == MAIN]


def tasks(made: Results, counts: Counts) -> Iterator[Task]:
    """The work behind results, in the order of the chain."""
    for stage in STAGES:
        yield from (task(*result, counts) for result in made.values() if result.stage == stage)


def task(stage: str, params: Params, label: str | None, counts: Counts) -> Task:
    """The images behind one result of a stage; none where no image goes through a model."""
    verb, classes, search = STAGES[stage].verb, params.generator.classes, params.guidance_search
    guidance = params.sampling.guidance
    draw = drawing(params, guided=guidance is None or guidance.scale != 1)
    scored = drawing(params, guided=True), "decode", "score"
    match stage:
        case "data":
            return Task(verb, ("image",), counts.train + counts.validation, params)
        case "classifier":
            return Task(verb, ("classifier",), params.classifier.steps * params.classifier.batch_size, params)
        case "reference":
            return Task(verb, ("judge",), counts.validation, params)
        case "tokenizer":
            return Task(verb, ("tokenizer",), steps(params, label) * params.tokenizer_training.batch_size, params)
        case "codes":
            return Task(verb, ("encode",), counts.train * params.codes.crop_count, params)
        case "generator":
            training = params.generator_training
            return Task(verb, ("generator",), training.steps * training.batch_size, params)
        case "candidate":
            return Task(verb, scored, search.candidate_samples * classes, params)
        case "finalist":
            return Task(verb, scored, search.samples_per_class * classes, params)
        case "reconstruction":
            return Task(f"{verb}, reconstructions", ("encode", "decode", "judge", "compare"), counts.validation, params)
        case "generation":
            return Task(f"{verb}, samples", (draw, "decode", "judge"), params.evaluation.samples_per_class * classes, params)
        case "unguided":
            parts = drawing(params, guided=False), "decode", "judge"
            return Task(f"{verb}, samples without guidance", parts, params.evaluation.samples_per_class * classes, params)
        case "panel":
            return Task(verb, ("encode", "decode"), SHOWN * len(params.tokenizer.levels), params)
        case "samples":
            return Task(verb, (draw, "decode"), SHOWN * classes, params)
    return Task(verb, (), 0, params)


def steps(params: Params, label: str) -> int:
    """Of a tokenizer's training, from the checkpoint before."""
    checkpoints = params.tokenizer_training.checkpoints
    until = list(checkpoints.values())
    at = list(checkpoints).index(label)
    return until[at] - (until[at - 1] if at else 0)


def drawing(params: Params, guided: bool) -> Draw:
    ntp = params.generator.ntp
    return Draw(f"draw, ntp {ntp}{', guided' * guided}", ntp, guided)


def name(part: str | Draw) -> str:
    return part if isinstance(part, str) else part.name
