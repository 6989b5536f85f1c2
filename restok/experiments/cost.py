"""What a job costs before anybody has measured it: its images, the operations that one takes, and an assumed rate."""

import math
from collections.abc import Mapping

from restok.config import Params
from restok.experiments import work
from restok.experiments.demand import large
from restok.experiments.operations import operations

# Operations a second that a training keeps up. An H100 can do ten times as many at the most (989 TFLOP/s, its data sheet), but
# convolutions in float32, norms and waiting take their time; a CPU's is that of one core, about.
GPU_RATE, CPU_RATE = 100e12, 5e9
READING = 0.010                # seconds: to decode and crop a JPEG of 500 x 375 pixels on one core
READERS = ("tokenizer",), ("judge",)     # what reads images of files while it computes
START, MARGIN, STEP = 10, 3, 10          # minutes: to start with; times the estimate, which no GPU has confirmed; rounded up to


def minutes(stage: str, params: Params, label: str | None, processes: int = 1, parts: int = 1) -> int:
    """What to ask of a scheduler for a job: of one result of a stage (at a checkpoint, where it has one), which so many
    processes make together, or of one of so many parts of it. Nobody has counted the images: ImageNet's, or the digits."""
    task = work.task(stage, params, label, work.assumed(params))
    return STEP * math.ceil((START + MARGIN * 60 * hours(task) / processes / parts) / STEP)


def hours(task: work.Task) -> float:
    """Of one process, counted."""
    return task.images * seconds(task, counted(task)) / 3600


def counted(task: work.Task) -> dict[str, float]:
    """Seconds an image of each part."""
    parts = {work.name(part): operations(part, task.params) / rate(task.params) for part in task.parts}
    return parts | {"image": READING}


def rate(params: Params) -> float:
    """Operations a second of one process."""
    return GPU_RATE if large(params) else CPU_RATE


def seconds(task: work.Task, each: Mapping[str, float]) -> float:
    """An image's, by those of its parts. What trains on images of files, or measures them, takes at least as long as its loader
    processes need to read them."""
    reading = each["image"] / max(1, task.params.data.workers)
    if task.parts == ("image",):
        return reading
    computing = sum(each[work.name(part)] for part in task.parts)
    return max(computing, reading) if task.parts in READERS else computing
