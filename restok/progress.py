"""Progress of long work: a bar on a terminal, a log line now and then elsewhere."""

import logging
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")
CONSOLE = Console(stderr=True)   # one console: a log handler that writes to it does not tear the bar
if not CONSOLE.is_terminal:
    CONSOLE.width = max(CONSOLE.width, 160)              # of tables in a log, which no screen narrows
log = logging.getLogger("restok")


def track(iterable: Iterable[T], description: str, total: int | None, every: float = 30.0) -> Iterator[T]:
    """The items of `iterable`, with steps, rate and time left shown as they pass.

    `total` is how many to expect, None where nobody knows; without a terminal, one INFO line every `every` seconds and one
    at the end.
    """
    yield from _bar(iterable, description, total) if CONSOLE.is_terminal else _lines(iterable, description, total, every)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{_number(task.finished_speed or task.speed or 0)}/s", style="progress.data.speed")


def _bar(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=CONSOLE) as progress:
        yield from progress.track(iterable, total=total, description=description)


def _lines(iterable: Iterable[T], description: str, total: int | None, every: float) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(iterable, 1):
        yield item
        if (now := time.monotonic()) - last >= every:
            log.info(_line(description, done, total, now - start))
            last = now
    log.info(_line(description, done, total, time.monotonic() - start))


def _line(description: str, done: int, total: int | None, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    parts = [f"{description}: {done}" + (f"/{total} ({done / total:.0%})" if total else ""), f"{_number(rate)}/s"]
    if total and 0 < done < total:
        parts.append(f"{timedelta(seconds=round((total - done) / rate))} left")
    return ", ".join(parts)


def _number(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
