"""Timing a function on the device at hand, and showing rows of results."""

import timeit
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from rich.table import Table

from restok.config.load import ConfigError
from restok.distributed import device
from restok.files import write_json
from restok.progress import CONSOLE

WARMUP = 2                      # untimed runs of every case: allocator, kernel choice, lazy initialisation


def seconds(run: Callable[[], object]) -> float:
    """Of one run, until the device has finished its work."""
    return timeit.timeit(run, timer=clock, number=1)


def clock() -> float:
    """As torch.utils.benchmark's, whose import looks for a compiler and warns on machines with CUDA's tools but no GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return timeit.default_timer()


def time_runs(run: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` runs, after a warm-up."""
    for _ in range(WARMUP):
        run()
    return [seconds(run) for _ in range(repeats)]


def require_positive(**sizes: int) -> None:
    """Raises ConfigError for sizes below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"{name.replace('_', ' ')} {value}: expected 1 or more")


def machine() -> dict:
    """What every row says of where it was measured."""
    name = torch.cuda.get_device_name(device()) if torch.cuda.is_available() else "CPU"
    return {"device": name, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def report(rows: list[dict], out: str | Path, title: str, columns: Sequence[str],
           cells: Iterable[Sequence[str | float]]) -> None:
    """Write the rows as JSON, and print them as a table of `cells`: words as they are, numbers with three digits."""
    write_json(out, rows)
    table = Table(*columns[:2], title=title.format(**rows[0]))
    for name in columns[2:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*(cell if isinstance(cell, str) else short(cell) for cell in row))
    CONSOLE.print(table)


def short(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")
