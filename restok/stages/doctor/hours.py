"""How long each step of a run takes: its images, by the seconds that one takes here."""

from collections.abc import Iterable
from typing import NamedTuple

from restok.experiments.work import Draw, Task
from restok.stages.bench.timing import short
from restok.stages.doctor.speed import Speed, Speeds

SHOWN = {"image": "reading 500 x 375 JPEGs on one core", "tokenizer": "training", "generator": "training",
         "judge": "features"}             # parts, where their names do not say it
ON_CPU = ("prepare",)                    # verbs that take no GPU


class Hours(NamedTuple):
    """Of one process, for the parameter file's own run and for all rows; None: not known, and `scaled_from` says why."""

    verb: str
    main: float | None
    sheet: float | None
    gpu: bool                       # whether they are GPU-hours, too: a job takes one GPU
    scaled_from: str


def hours(main: Iterable[Task], sheet: Iterable[Task], speeds: Speeds, workers: int) -> list[Hours]:
    """A row a verb, in the order of the chain."""
    own, every = list(main), list(sheet)
    rows = []
    for verb in dict.fromkeys(task.verb for task in every):
        tasks = [task for task in every if task.verb == verb]
        parts = tuple(dict.fromkeys(name(part) for task in tasks for part in task.parts))
        missing = [part for part in parts if part not in speeds.speeds]
        if missing:
            total = [None, None]
            scaled_from = f"not measured: {speeds.faults.get(missing[0], 'nothing')}"
        else:
            total = [sum(task.images * _seconds(task, speeds.speeds, workers) for task in some if task.verb == verb) / 3600
                     for some in (own, every)]
            scaled_from = "; ".join(_said(part, speeds.speeds[part]) for part in parts)
        rows.append(Hours(verb, *total, verb not in ON_CPU and speeds.memory is not None, scaled_from))
    return rows


def name(part: str | Draw) -> str:
    return part if isinstance(part, str) else part.name


def draws(tasks: Iterable[Task]) -> list[Draw]:
    """All the ways in which samples are drawn."""
    return list(dict.fromkeys(part for task in tasks for part in task.parts if isinstance(part, Draw)))


def _seconds(task: Task, speeds: dict[str, Speed], workers: int) -> float:
    """An image's. What trains on images of files, or measures them, takes at least as long as reading them does."""
    seconds = sum(speeds[name(part)].seconds for part in task.parts)
    reading = speeds["image"].seconds / max(1, workers)
    if task.parts == ("image",):
        return reading
    return max(seconds, reading) if task.parts in (("tokenizer",), ("judge",)) else seconds


def _said(part: str, speed: Speed) -> str:
    batch = f" in batches of {speed.batch}" if speed.batch > 1 else ""
    return f"{SHOWN.get(part, part)} {short(1 / speed.seconds)}/s{batch}"
