"""How long each step of a run takes: its images, by the seconds that one takes here, or, for want of a GPU, as counted."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from restok.experiments import cost
from restok.experiments.operations import operations
from restok.experiments.work import Draw, Task, name
from restok.stages.bench.timing import short
from restok.stages.doctor.speed import Speed, Speeds

SHOWN = {"image": "reading 500 x 375 JPEGs on one core", "tokenizer": "training", "generator": "training",
         "judge": "features", "score": "features of the first network"}             # parts, where their names do not say it
ON_CPU = ("prepare",)                    # verbs that take no GPU


class Hours(NamedTuple):
    """Of one process, for the parameter file's own run and for all rows; None: not known, and `scaled_from` says why."""

    verb: str
    main: float | None
    sheet: float | None
    gpu: bool                       # whether they are GPU-hours, too: a job takes one GPU
    counted: bool                   # from operations at an assumed rate: nothing was measured
    scaled_from: str


def hours(main: Iterable[Task], sheet: Iterable[Task], speeds: Speeds) -> list[Hours]:
    """A row a verb, in the order of the chain."""
    own, every = list(main), list(sheet)
    rows = []
    for verb in dict.fromkeys(task.verb for task in every):
        tasks = [task for task in every if task.verb == verb]
        counted = any(_counted(task, speeds) for task in tasks)
        totals = [_total(of_task(task, speeds) for task in some if task.verb == verb) for some in (own, every)]
        gpu = verb not in ON_CPU and (counted or speeds.memory is not None)
        rows.append(Hours(verb, *totals, gpu, counted, _scaled_from(tasks, speeds)))
    return rows


def of_task(task: Task, speeds: Speeds) -> float | None:
    """Hours of one process: all parts measured, or all of the models' counted; None: not known."""
    if _missing(task, speeds) and not _counted(task, speeds):
        return None
    return task.images * cost.seconds(task, _each(task, speeds)) / 3600


def draws(tasks: Iterable[Task]) -> list[Draw]:
    """All the ways in which samples are drawn."""
    return list(dict.fromkeys(part for task in tasks for part in task.parts if isinstance(part, Draw)))


def _total(each: Iterable[float | None]) -> float | None:
    known = list(each)
    return None if None in known else sum(known)


def _missing(task: Task, speeds: Speeds) -> list[str]:
    return [name(part) for part in task.parts if name(part) not in speeds.speeds]


def _counted(task: Task, speeds: Speeds) -> bool:
    return speeds.no_gpu and bool(_missing(task, speeds))


def _each(task: Task, speeds: Speeds) -> dict[str, float]:
    """Seconds an image of each part. Reading was measured also where models are counted."""
    measured = {part: speed.seconds for part, speed in speeds.speeds.items()}
    return cost.counted(task) | measured if _counted(task, speeds) else measured


def _scaled_from(tasks: Sequence[Task], speeds: Speeds) -> str:
    missing = [part for task in tasks for part in _missing(task, speeds)]
    if not missing:
        parts = dict.fromkeys(name(part) for task in tasks for part in task.parts)
        return "; ".join(_said(part, speeds.speeds[part]) for part in parts)
    if not speeds.no_gpu:
        return f"not measured: {speeds.faults.get(missing[0], 'nothing')}"
    an_image = [sum(operations(part, task.params) for part in task.parts) / 1e12 for task in tasks]
    span = " to ".join(dict.fromkeys(f"{count:.2g}" for count in (min(an_image), max(an_image))))
    says = f"counted, not measured: {span} TFLOP an image at {cost.rate(tasks[0].params) / 1e12:g} TFLOP/s"
    reading = any(cost.seconds(task, each) > sum(each[name(part)] for part in task.parts)
                  for task in tasks for each in [_each(task, speeds)])
    return says + f", but no faster than {_said('image', speeds.speeds['image'])}" * reading


def _said(part: str, speed: Speed) -> str:
    batch = f" in batches of {speed.batch}" if speed.batch > 1 else ""
    return f"{SHOWN.get(part, part)} {short(1 / speed.seconds)}/s{batch}"
