"""Timing a function on a device, and showing rows of results."""

import time
from collections.abc import Callable

import torch

WARMUP = 2                      # untimed runs of every case: allocator, kernel choice, lazy initialisation


def time_runs(run: Callable[[], object], repeats: int, on: torch.device, warmup: int = WARMUP) -> list[float]:
    """Seconds of each of `repeats` runs, after a warm-up; each is timed until the device has finished its work."""
    wait = torch.cuda.synchronize if on.type == "cuda" else lambda: None
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def machine(on: torch.device) -> str:
    return torch.cuda.get_device_name(on) if on.type == "cuda" else "CPU"


def short(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")
