"""What the jobs of a dry run cost: GPU-hours by rule, as the doctor estimated them, or else counted."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from restok.config import Params
from restok.errors import RestokError
from restok.experiments import cost, work
from restok.experiments.demand import gpus
from restok.experiments.places import STAGES, part_pattern, pattern
from restok.experiments.records import Examined
from restok.experiments.telling import quiet
from restok.files.loading import load_model

# Stages whose jobs run models for longer than seconds.
ESTIMATED = ("reference", "tokenizer", "codes", "generator", "candidate", "finalist", "reconstruction", "generation",
             "unguided")
DOCTOR = "results/{run}/doctor.json"


class Job(NamedTuple):
    """Of a dry run."""

    rule: str
    run: str = ""
    task: work.Task | None = None   # on a GPU, of the whole result; None: it takes none, or seconds
    result: str = ""                # its path
    share: float = 1                # of that work: a part's; 0 of a job that gathers parts


class Estimate(NamedTuple):
    """Of one run's results."""

    says: str                       # where hours come from
    results: dict[str, float | None] | None      # the doctor's; None: count

    def hours(self, job: Job) -> float | None:
        """GPU-hours; None: the doctor could not measure them."""
        whole = cost.hours(job.task) if self.results is None else self.results[job.result]
        return None if whole is None else whole * job.share


def table(jobs: Sequence[Job], digest_of: Callable[[str], str]) -> str:
    """Rules, as their jobs come, with numbers of jobs and GPU-hours; empty where no job takes a GPU for long. `digest_of`
    a run are the settings as they are now."""
    paying = [job for job in jobs if job.task]
    if not paying:
        return ""
    estimates = {run: estimate(run, [job for job in paying if job.run == run], digest_of(run))
                 for run in dict.fromkeys(job.run for job in paying)}
    rows = []
    for rule in dict.fromkeys(job.rule for job in jobs):
        own = [job for job in jobs if job.rule == rule]
        rows.append((rule, len(own), _sum(estimates[job.run].hours(job) for job in own if job.task and job.share)))
    total = _sum(estimates[job.run].hours(job) for job in paying if job.share)
    width = max(len("total"), *(len(rule) for rule, _, _ in rows))
    lines = [f"{'job':{width}}  {'count':>7}  {'GPU-hours':>12}", f"{'-' * width}  {'-' * 7}  {'-' * 12}"]
    lines += [f"{rule:{width}}  {count:7}  {hours:>12}".rstrip() for rule, count, hours in [*rows, ("total", len(jobs), total)]]
    return "\n".join(["GPU-hours of these jobs:", *lines, *(each.says for each in estimates.values())]) + "\n"


def estimate(run: str, jobs: Sequence[Job], settings: str) -> Estimate:
    """By the doctor's file where it is about these settings and results, else counted. Never some of each."""
    place = DOCTOR.format(run=run)
    counted = f"counted, not measured: {cost.GPU_RATE / 1e12:g} TFLOP/s a GPU"
    measures = f"restok doctor --params {quote(f'params/{run}.yaml')} --out {quote(place)}"
    again = f"On a machine with the GPU, this measures:\n    {measures}"
    found = _examined(Path(place))
    if found and found.settings == settings and found.estimate != "CPU" and all(job.result in found.results for job in jobs):
        by = f"measured on {found.device}" if found.estimate == "GPU" else f"{counted}. {again}"
        return Estimate(f"{run}: of {place}, {by}", found.results)
    images = work.assumed(jobs[0].task.params).train
    return Estimate(f"{run}: {counted}, {images:,} training images. {again}", None)


def _examined(place: Path) -> Examined | None:
    """None also of a file that an earlier version wrote, without results: its hours are counted, and it is said."""
    try:
        return load_model(place, Examined) if place.exists() else None
    except RestokError:
        return None


def _sum(hours: Iterable[float | None]) -> str:
    """Empty where there is none."""
    every = list(hours)
    known = [one for one in every if one is not None]
    if len(known) < len(every):
        return f"{_short(sum(known))} + ?" if known else "?"
    return _short(sum(known)) if known else ""


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


# Snakemake's jobs


def planned(job: Any, settings_of: Callable[[Any], Params]) -> Job:
    """What a job of Snakemake's is to make; `settings_of` its wildcards are its parameters."""
    wildcards, rule = dict(job.wildcards.items()), job.rule.name
    output = str(job.output[0]) if job.output else ""
    for stage in _stages(wildcards) if "run" in wildcards else ():
        share = _share(stage, output, wildcards)
        if share is None:
            continue
        params = settings_of(job.wildcards)
        if stage not in ESTIMATED or not gpus(params):
            break
        task = work.task(stage, params, wildcards.get("label"), work.assumed(params))
        return Job(rule, wildcards["run"], task, pattern(stage).format(**wildcards), 0 if job.input.get("parts") else share)
    return Job(rule, wildcards.get("run", ""), result=output)


def _stages(wildcards: dict[str, str]) -> Iterator[str]:
    """Those whose places have no other wildcards."""
    for stage in STAGES:
        if set(_names(pattern(stage))) <= set(wildcards):
            yield stage


def _names(text: str) -> list[str]:
    return [piece.partition("}")[0] for piece in text.split("{")[1:]]


def _share(stage: str, output: str, wildcards: dict[str, str]) -> float | None:
    """How much of a stage's result lies at `output`; None: nothing of it."""
    if output == pattern(stage).format(**wildcards):
        return 1
    if "part" in wildcards and output.startswith(part_pattern(stage).format(**wildcards)):
        return 1 / int(wildcards["part"].partition("-of-")[2])
    return None


class BelowCounts(logging.Handler):
    """Of Snakemake's log: says the table below each of its counts of jobs, in a dry run, where --quiet does not hide those.
    What fails here is said, and stops nothing."""

    def __init__(self, workflow: Any, log: logging.Logger, settings_of: Callable[[Any], Params],
                 digest_of: Callable[[str], str]):
        super().__init__()
        self.workflow, self.log, self.settings_of, self.digest_of = workflow, log, settings_of, digest_of

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if getattr(record, "event", None) == "run_info" and self.workflow.dryrun and not quiet(self.workflow) and self.text:
                self.log.info(self.text)
        except Exception as error:
            self.log.info(f"GPU-hours: not estimated ({type(error).__name__}: {error})\n")

    @cached_property
    def text(self) -> str:
        order = {rule.name: place for place, rule in enumerate(self.workflow.rules)}
        jobs = sorted(self.workflow.dag.needrun_jobs(exclude_finished=False), key=lambda job: order[job.rule.name])
        return table([planned(job, self.settings_of) for job in jobs], self.digest_of)
