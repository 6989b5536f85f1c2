"""The log of a training as curves: under names that MLflow's pages group, of not more keys and points than they bear."""

import json
import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from restok.tracking import Point

POINTS = 2000                        # of a curve, at the most: with 10,000 the pages stand still
NAMES = (                            # of a row's keys: the first that fits; None: not sent, for the pages bear about 30 keys
    (r"step|time|steps_per_second|codebook_tokens|codebook_use_\d+", None),
    (r"codebook_entropy_(\d+)", r"codebook by level/entropy \1"),
    (r"codebook_(\w+)", r"codebook/\1"),
    (r"((learning_rate|gradient_norm|loss_scale|skipped_share)\w*)", r"optimizer/\1"),
    (r"(images_per_second|data_seconds|memory_gb)", r"speed/\1"),
    (r"(\w+)", r"loss/\1"))


def name_of(key: str) -> str | None:
    """How MLflow calls what a row of the log calls `key`; None: it is not sent."""
    for pattern, name in NAMES:
        if found := re.fullmatch(pattern, key):
            return name and found.expand(name)
    return None


def curves(path: Path, steps: range, written: int) -> Iterator[Point]:
    """The points of a log over `steps`, of rows that are evenly spread, and of the last one once there is no more to come. Rows
    of earlier versions have no time: they take `written`, in milliseconds since 1970."""
    stride, before, row = max(1, -(-len(steps) // POINTS)), None, None
    for row in _rows(path):
        if (at := row["step"] // stride) != before or row["step"] >= steps.stop:
            before = at
            yield from _points(row, steps, written)


def _points(row: dict[str, float], steps: range, written: int) -> Iterator[Point]:
    time, step = round(1000 * row["time"]) if "time" in row else written, row["step"]
    for key, value in row.items():
        if (name := name_of(key)) and isfinite(value):
            yield Point(name, float(value), time, step)
    yield Point("progress", (step - steps.start) / max(1, len(steps)), time, step)


def _rows(path: Path) -> Iterator[dict[str, float]]:
    """Those that are whole: a training may be writing the last one, or have been killed over it."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
