"""What the verbs measure: statistics, evaluate by either protocol, and score-guidance for one candidate of the search."""

import glob
import json
from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch

from restok import config
from restok.config.load import canonical_json
from restok.distributed import Shard, is_first
from restok.files import remove_left_over, write_json
from restok.metrics.evaluate import evaluate_candidate, evaluate_generation, evaluate_reconstruction, require_alike
from restok.metrics.statistics import Statistics
from restok.stages.evaluator import Evaluator
from restok.stages.images import Sampler
from restok.stages.subjects import MeasureError, Subject, sampled

Show = Callable[[Any], None]             # is given what was measured, also where it then cannot be written


def added(paths: list[Path], device: torch.device | str) -> Statistics:
    """The sum of statistics files: the shards of one subject."""
    return reduce(add, (Statistics.load(path, device) for path in paths))


def write_statistics(evaluator: Evaluator, subject: Subject | Statistics, shard: Shard, state: Path | None, out: Path,
                     show: Show = lambda _: None) -> None:
    """Measure a subject once, for use as a reference or as samples; or one shard of it, to be given with the others."""
    _apart(state, out)
    statistics = evaluator.statistics(subject, state, shard)
    if is_first():
        try:
            statistics.save(out)
        finally:
            show(statistics)
        _forget(state)


def evaluate(evaluator: Evaluator, subject: Subject | Statistics, reference: Path, out: Path | None = None, *,
             expected: int | None = None, state: Path | None = None, kept: Path | None = None,
             seed: int | None = None, show: Show = lambda _: None) -> dict | None:
    """Measure a subject, where that was not done before, and hold it against a reference. Writes the result as JSON.

    `expected` is the number of images; `state`, where an unfinished run keeps its sums; `kept`, where they go in the end;
    `seed`, what the samples were drawn from, as the result says. Of several `processes` each measures a share, and the first
    one writes; the others return None. Raises MeasureError for another number of images than expected, ComparisonError for
    another network or image size, before anything is measured.
    """
    _apart(state, out, kept)
    statistics, against = _measured(evaluator, subject, reference, state, expected)
    if not is_first():
        return None
    if statistics.facts["likeness"]:
        result = evaluate_reconstruction(statistics, against)
    else:
        result = evaluate_generation(statistics, against, evaluator.settings)
    result |= {"seed": seed}
    try:
        if out is not None:
            write_json(out, result)
        if kept is not None:
            statistics.save(kept)
    finally:
        show(result)
    if out is not None:
        _forget(state)
    return result


def score_guidance(evaluator: Evaluator, params: config.Params, guidance: config.Guidance, tokenizer: Path, generator: Path,
                   reference: Path, state: Path | None, out: Path, show: Show = lambda _: None) -> None:
    """Measure one candidate on samples of its own, drawn from another seed than the final ones. Writes JSON."""
    _apart(state, out)
    seed = params.seed + 1
    subject = sampled(Sampler(tokenizer, generator), params, guidance, params.guidance_search.samples_per_class, seed)
    statistics, against = _measured(evaluator, subject, reference, state)
    if is_first():
        result = {**guidance.model_dump(), **evaluate_candidate(statistics, against), "seed": seed,
                  **json.loads(canonical_json(params, "sampling"))}
        try:
            write_json(out, result)
        finally:
            show(result)
        _forget(state)


def _measured(evaluator: Evaluator, subject: Subject | Statistics, reference: Path, state: Path | None,
              expected: int | None = None) -> tuple[Statistics, Statistics]:
    """The statistics of a subject and of its reference, once it is sure that the two compare."""
    begun = subject if isinstance(subject, Statistics) else evaluator.begin(subject)
    if expected is not None and begun.n != expected:
        raise MeasureError(f"{begun.name}: {begun.n} images, not the {expected} asked for; a distance depends on their number: "
                           "make the others, or ask for this number")
    against = evaluator.reference(reference)
    require_alike(begun, against)
    return evaluator.statistics(subject, state), against


def _apart(state: Path | None, *others: Path | None) -> None:
    if state is not None and state in others:
        raise MeasureError(f"{state}: the sums of an unfinished measurement go there, and are removed in the end; name another "
                           "file with --state")


def _forget(state: Path | None) -> None:
    """Remove the sums of a measurement that is finished: those of all its processes, and what a killed save left behind."""
    if state is None:
        return
    stem = glob.escape(state.stem)
    for name in (f"{stem}{state.suffix}", f"{stem}.*of*{state.suffix}"):
        for path in state.parent.glob(name):
            path.unlink()
        remove_left_over(state.parent, name)
