"""What the verbs measure: statistics, evaluate by either protocol, and one setting of the search for guidance."""

import glob
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from restok import config
from restok.config.load import canonical_json
from restok.distributed import from_first, is_first
from restok.files import remove_left_over, write_json
from restok.files.artifact import Origin, digest_of
from restok.files.noted import beside, noted_in
from restok.metrics.evaluate import evaluate_candidate, evaluate_generation, evaluate_reconstruction, require_alike
from restok.metrics.features import JUDGES
from restok.metrics.statistics import Statistics, StatisticsError
from restok.parts import WHOLE, Shard
from restok.stages.evaluator import Evaluator
from restok.stages.sampler import Sampler
from restok.stages.search import SearchError, ranked, scored, setting
from restok.stages.subjects import MeasureError, Subject, sampled

log = logging.getLogger("restok")
Show = Callable[[Any], None]             # is given what was measured, also where it then cannot be written


def added(paths: list[Path], device: torch.device | str, of: Statistics | None = None) -> Statistics:
    """The sum of statistics files: the parts of one subject, of which `of` is the empty state where it is known. Raises
    MeasureError, which names the file, for a part of something else and for images that two parts have."""
    whole, taken = None, {}
    for path in paths:
        part = Statistics.load(path, device)
        for other, seen in taken.items():
            if (both := (seen & (part.seen > 0)).nonzero()).numel():
                raise MeasureError(f"{path}: {len(both)} of its images are in {other}, too, the first is number "
                                   f"{int(both[0])}; name each part once, all of one division")
        taken[path] = part.seen > 0
        try:
            (of or whole or part).require_same(part)
            whole = whole + part if whole else part
        except StatisticsError as error:
            raise MeasureError(f"{path}: not a part of what is measured; {error}; measure it again") from None
    return whole


def write_statistics(evaluator: Evaluator, subject: Subject | Statistics, shard: Shard, state: Path | None, out: Path,
                     show: Show = lambda _: None) -> None:
    """Measure a subject once, for use as a reference or as samples; or one part of it, to be given with the others. All parts
    may name one `state`: each has its own beside it, and `evaluate` removes them where it is given the same."""
    _apart(state, out)
    if state is not None and shard != WHOLE:
        state = state.with_stem(f"{state.stem}.part{shard.part}of{shard.parts}")
    if from_first(lambda: out.exists() and evaluator.is_measured(out, subject, shard)):
        log.info("%s: measured before, of the same images and settings; delete it to have it measured again", out)
        return
    with _noted(state):
        statistics = evaluator.statistics(subject, state, shard)
    if is_first():
        try:
            statistics.save(out)
        finally:
            show(statistics)
        if state is not None:
            _forget(state)
            statistics.save(state)               # for when `out` is deleted; no second name of it: DVC changes their times


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
    begun, opened = _begun(evaluator, subject, expected), evaluator.open_reference(reference)
    made_of = _origin("evaluation", begun, opened, reference, seed=seed, neighbours=evaluator.settings.neighbours,
                      distances=list(evaluator.settings.distances),
                      **({"fdr6": True} if "fdr6" in evaluator.settings.also else {}))
    result = None if kept else _measured_before(made_of, out, state)
    keep = None
    if result is None:
        with _noted(state):
            statistics, against = _measured(evaluator, subject, begun, opened, state)
            if is_first():
                if statistics.facts["likeness"]:
                    result = evaluate_reconstruction(statistics, against, evaluator.settings)
                else:
                    result = evaluate_generation(statistics, against, evaluator.settings)
                result = made_of.sealed(result | {"seed": seed}, _place(out), statistics.made)
                keep = kept and partial(statistics.save, kept)
    if is_first():
        _finish(result, out, state, show, keep)
        return result
    return None


def score_guidance(evaluator: Evaluator, params: config.Params, guidance: config.Guidance, tokenizer: Path, generator: Path,
                   reference: Path, state: Path | None, out: Path, show: Show = lambda _: None) -> None:
    """Measure one candidate on samples of its own, drawn from another seed than the final ones. Writes JSON."""
    sampler = Sampler(tokenizer, generator, params.sampling)
    _score(evaluator, params, sampler, guidance, params.guidance_search.candidate_samples, reference, state, out, show)


def score_finalist(evaluator: Evaluator, params: config.Params, candidates: list[Path], rank: int, tokenizer: Path,
                   generator: Path, reference: Path, state: Path | None, out: Path, show: Show = lambda _: None) -> None:
    """Measure the candidate of a `rank`, from 1, again: on more samples, from the same seed. Writes JSON.

    Raises SearchError for a rank that there is not, and for candidates whose samples these models did not draw, or not so.
    """
    rows = ranked(scored(candidates))
    if rank > len(rows):
        raise SearchError(f"rank {rank}: there are {len(rows)} candidates; name a rank that there is")
    sampler = Sampler(tokenizer, generator, params.sampling)
    for row in rows:
        own = sampled(sampler, params, setting(row), row["n"] // sampler.generator.config.classes, params.seed + 1)
        if row["samples"]["digest"] != own.facts["digest"]:
            raise SearchError(f"{row.path}: its samples are not those of {sampler.name} with these settings; score it "
                              "again")
    per_class = params.guidance_search.samples_per_class
    _score(evaluator, params, sampler, setting(rows[rank - 1]), per_class, reference, state, out, show)


def _score(evaluator: Evaluator, params: config.Params, sampler: Sampler, guidance: config.Guidance, per_class: int,
           reference: Path, state: Path | None, out: Path, show: Show) -> None:
    """Image i of every setting is drawn from one seed and i: common random numbers."""
    _apart(state, out)
    seed = params.seed + 1
    subject = sampled(sampler, params, guidance, per_class, seed)
    begun, opened = _begun(evaluator, subject), evaluator.open_reference(reference)
    settings = {**guidance.model_dump(), "seed": seed, **json.loads(canonical_json(params, "sampling"))}
    made_of = _origin("candidate", begun, opened, reference, **settings)
    result = _measured_before(made_of, out, state)
    if result is None:
        with _noted(state):
            statistics, against = _measured(evaluator, subject, begun, opened, state)
            measured = evaluate_candidate(statistics, against) | settings
            result = made_of.sealed(measured, _place(out), statistics.made) if is_first() else None
    if is_first():
        _finish(result, out, state, show)


def _begun(evaluator: Evaluator, subject: Subject | Statistics, expected: int | None = None) -> Statistics:
    """The statistics of a subject before it is measured, or as they are. Raises MeasureError for another number of images."""
    begun = subject if isinstance(subject, Statistics) else evaluator.begin(subject)
    if begun is subject:
        begun.require_whole()
        named = [JUDGES[name].kind for name in evaluator.settings.also if name != "fdr6"]
        if lacking := [kind for kind in named if kind not in begun.also]:
            raise MeasureError(f"{begun.name}: was not measured with {', '.join(lacking)}, which is asked for; measure it "
                               "again, or ask for fewer networks (--features)")
    if expected is not None and begun.n != expected:
        raise MeasureError(f"{begun.name}: {begun.n} images, not the {expected} asked for; a distance depends on their number: "
                           "make the others, or ask for this number")
    return begun


def _measured(evaluator: Evaluator, subject: Subject | Statistics, begun: Statistics, reference: Subject | Statistics,
              state: Path | None) -> tuple[Statistics, Statistics]:
    """The statistics of a subject and of its reference, once it is sure that the two compare."""
    against = evaluator.statistics(reference)
    require_alike(begun, against)
    return evaluator.statistics(subject, state), against


def _noted(state: Path | None) -> AbstractContextManager[None]:
    """Beside the sums of an unfinished measurement stands how far it is."""
    return noted_in(beside(state) if state is not None and is_first() else None)


def _origin(kind: str, measured: Statistics, reference: Subject | Statistics, path: Path, **settings: Any) -> Origin:
    """`path`: of the reference, images or statistics of them."""
    inputs, images = {"measured": digest_of(measured.facts), "reference": digest_of(reference.facts)}, measured.facts["images"]
    settings = {"n": measured.n, "batch_size": measured.facts["batch_size"], **images.get("settings", {}), **settings}
    paths = {**measured.paths, "reference": path}
    if isinstance(reference, Subject):                   # measured here: its images are the input
        inputs |= {"reference images": reference.facts["digest"]}
        paths = {**measured.paths, "reference images": path}
    return Origin(kind, settings, inputs | measured.inputs, paths)


def _place(out: Path | None) -> Path:
    """From where a result's inputs are seen; of one that is not written, from here."""
    return out or Path("-")


def _measured_before(origin: Origin, out: Path | None, state: Path | None) -> dict | None:
    """The result, on all processes, where it stands at `out`, or was kept in the place of the sums."""
    def look() -> dict | None:
        for path in (out, state and _kept(state)):
            if path is not None and (result := origin.result(path)):
                log.info("%s: measured before, of the same images and settings; delete it to have it measured again", path)
                return result
        return None

    return from_first(look)


def _finish(result: dict, out: Path | None, state: Path | None, show: Show,
            keep: Callable[[], None] | None = None) -> None:
    try:
        if out is not None:
            write_json(out, result)
        if keep:
            keep()
    finally:
        show(result)
    if out is not None and state is not None:
        write_json(_kept(state), result)         # for when `out` is deleted
        _forget(state)


def _kept(state: Path) -> Path:
    return state.with_suffix(".json")


def _apart(state: Path | None, *others: Path | None) -> None:
    if state is not None and state in others:
        raise MeasureError(f"{state}: the sums of an unfinished measurement go there, and are removed in the end; name another "
                           "file with --state")


def _forget(state: Path) -> None:
    """Remove the sums of a measurement that is finished: those of all its parts and processes, and what a killed save left
    behind."""
    stem = glob.escape(state.stem)
    for name in (f"{stem}{state.suffix}", f"{stem}.process*of*{state.suffix}", f"{stem}.part*of*{state.suffix}"):
        for path in state.parent.glob(name):
            path.unlink()
        remove_left_over(state.parent, name)
