"""What the workflow makes for a parameter file, each result once, and how many images go through each of them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from restok import config
from restok.data.transforms import crop_count
from restok.experiments.places import STAGES, Tree
from restok.experiments.trials import Trial


class Counts(NamedTuple):
    """Images of the splits, and bytes of both together."""

    train: int
    validation: int
    size: int
    known: bool                     # False: assumed, for want of the images


class Result(NamedTuple):
    """A result that the workflow makes once, by the settings of the first row that needs it."""

    stage: str
    trial: Trial
    label: str


Results = dict[Path, Result]


class Draw(NamedTuple):
    """How samples are drawn: 'all' or a number of next-token predictions, and whether guidance doubles the rows of a batch."""

    name: str
    ntp: int | str
    guided: bool


class Task(NamedTuple):
    """Images that go through models in one step of the chain, each in the seconds of some measured parts."""

    verb: str
    parts: tuple[str | Draw, ...]
    images: int


def results(tree: Tree, trials: Iterable[Trial]) -> Results:
    """What is trained, encoded and measured for some rows of the sheet."""
    found: Results = {}
    for trial in trials:
        for result in _of(trial):
            found.setdefault(tree.path(result.stage, trial, result.label), result)
    return found


def _of(trial: Trial) -> Iterator[Result]:
    measured, stages = trial.labels, ["reconstruction"]
    if not trial.tokenizer:
        until = max(map(trial.every_label.index, measured), default=-1)
        for label in trial.every_label[:until + 1]:
            yield Result("tokenizer", trial, label)
        stages += ["codes", "generator"] + ([] if trial.params.sampling.guidance else ["guidance"])
    if trial.generator or not trial.tokenizer:
        stages.append("generation")
    for label in measured:
        yield from (Result(stage, trial, label) for stage in stages)


def own(tree: Tree) -> list[Trial]:
    """The rows that are the parameter file's own run."""
    return [trial for trial in tree.sheet.trials if trial.name == tree.sheet.run]


def tasks(made: Results, counts: Counts) -> Iterator[Task]:
    """The work behind what all rows share, and behind results, in the order of the chain. What takes seconds is left out."""
    yield Task(STAGES["data"].verb, ("image",), counts.train + counts.validation)
    yield Task(STAGES["reference"].verb, ("judge",), counts.validation)
    for stage in STAGES:
        yield from (_task(result, counts) for result in made.values() if result.stage == stage)


def _task(result: Result, counts: Counts) -> Task:
    verb, params = STAGES[result.stage].verb, result.trial.params
    classes, search, guidance = params.generator.classes, params.guidance_search, params.sampling.guidance
    if result.stage == "tokenizer":
        return Task(verb, ("tokenizer",), steps(result) * params.tokenizer_training.batch_size)
    if result.stage == "codes":
        return Task(verb, ("encode",), counts.train * crop_count(params.codes))
    if result.stage == "generator":
        return Task(verb, ("generator",), params.generator_training.steps * params.generator_training.batch_size)
    if result.stage == "guidance":
        samples = (len(search.candidates()) * search.candidate_samples + search.finalists * search.samples_per_class) * classes
        return Task(STAGES["candidate"].verb, (drawing(params, guided=True), "decode", "judge"), samples)
    if result.stage == "generation":
        draw = drawing(params, guided=guidance is None or guidance.scale != 1)
        return Task(f"{verb}, samples", (draw, "decode", "judge"), params.evaluation.samples_per_class * classes)
    return Task(f"{verb}, reconstructions", ("encode", "decode", "judge", "compare"), counts.validation)


def steps(result: Result) -> int:
    """Of a tokenizer's training, from the checkpoint before."""
    checkpoints = result.trial.params.tokenizer_training.checkpoints
    until = list(checkpoints.values())
    at = list(checkpoints).index(result.label)
    return until[at] - (until[at - 1] if at else 0)


def drawing(params: config.Params, guided: bool) -> Draw:
    ntp = params.generator.ntp
    return Draw(f"draw, ntp {ntp}{', guided' * guided}", ntp, guided)
