"""Progress of long work: a bar on a terminal, a log line now and then elsewhere; `restok.files.noted` keeps it in a file."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class Loop:
    """A loop on its way. Of `total` (None: nobody knows), `before` were finished by earlier calls, and count as done."""

    description: str
    total: int | None
    unit: str = ""                   # of what is counted, such as 'steps'
    before: int = 0
    done: int = field(init=False)
    began: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        self.done = self.before

    @property
    def rate(self) -> float:
        """A second, of this call."""
        return (self.done - self.before) / max(time.monotonic() - self.began, 1e-9)

    def __str__(self) -> str:
        counted = f"{self.done}" + (f"/{self.total} ({self.done / self.total:.0%})" if self.total else "")
        parts = [f"{self.description}: {counted}", rated(self.rate, self.unit)]
        return ", ".join(parts + [left for left in [left_of(self.done, self.total, self.rate)] if left])


loops: list[Loop] = []               # of this process, those that are on their way, the outermost first


def track(iterable: Iterable[T], description: str, total: int | None, unit: str = "", *, before: int = 0,
          size: Callable[[T], int] = lambda item: 1, every: float = 30.0) -> Iterator[T]:
    """The items of `iterable`, with how many are done, rate and time left shown as they pass; an item counts as `size` of it.

    `total` is how many to expect, None where nobody knows, with the `before` that were finished by an earlier call. Without a
    terminal, one INFO line every `every` seconds and one at the end.
    """
    loop = Loop(description, total, unit, before)
    loops.append(loop)
    try:
        yield from _bar(iterable, loop, size) if CONSOLE.is_terminal else _lines(iterable, loop, size, every)
    finally:
        loops.remove(loop)


class _Rate(ProgressColumn):
    def __init__(self, loop: Loop):
        super().__init__()
        self.loop = loop

    def render(self, task: Task) -> Text:
        return Text(rated(self.loop.rate, self.loop.unit), style="progress.data.speed")


def _bar(iterable: Iterable[T], loop: Loop, size: Callable[[T], int]) -> Iterator[T]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(loop), TimeRemainingColumn()
    with Progress(*columns, console=CONSOLE) as progress:
        task = progress.add_task(loop.description, total=loop.total, completed=loop.before)
        for item in iterable:
            yield item
            loop.done += size(item)
            progress.update(task, completed=loop.done)


def _lines(iterable: Iterable[T], loop: Loop, size: Callable[[T], int], every: float) -> Iterator[T]:
    last = time.monotonic()
    for item in iterable:
        yield item
        loop.done += size(item)
        if (now := time.monotonic()) - last >= every:
            log.info("%s", loop)
            last = now
    log.info("%s", loop)


def left_of(done: int, total: int | None, rate: float) -> str:
    """'0:12:10 left', at a rate a second; empty where it is unknown, or nothing is left."""
    return f"{timedelta(seconds=round((total - done) / rate))} left" if total and done < total and rate > 0 else ""


def rated(rate: float, unit: str = "") -> str:
    """'12.5 steps/s'."""
    return f"{_number(rate)}{unit and f' {unit}'}/s"


def _number(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
