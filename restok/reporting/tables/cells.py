"""Tables as files, and numbers as text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from restok.files import atomic_file
from restok.reporting.run import ReportError, require


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Write `frame` with its column names, making the folder where it is missing."""
    with atomic_file(path) as partial:
        frame.to_csv(partial, index=False)


def read_csv(path: str | Path) -> pd.DataFrame:
    """A table whose cells are text, exactly as written; a blank cell is an empty string."""
    return pd.read_csv(require(path), dtype=str, keep_default_na=False)


def read_settings(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table that comes with the repository. Raises ReportError where it is missing or has other columns."""
    if not Path(path).is_file():
        raise ReportError(f"{path}: missing; it comes with the repository: `git checkout {path}`")
    found = read_csv(path)
    if list(found.columns) != list(columns):
        raise ReportError(f"{path}: columns {', '.join(found.columns)}; expected {', '.join(columns)}")
    return found


def number(value: float | None) -> str:
    """Four significant digits, 18.12 or 0.7100; None, a metric that was not measured, is blank."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1e3 else f"{value:#.4g}"


def spread(interval: Sequence[float] | None, show: Callable[[float], str] = number) -> str:
    """An interval, '2.280 to 2.400'; blank where there is none."""
    return " to ".join(map(show, interval or ()))


def count(parameters: int) -> str:
    """Parameters as Table 1 prints them, to three digits: 662M, 1.33B, 84.5K."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= size:
            return f"{parameters / size:.{3 - len(str(int(parameters / size)))}f}{unit}"
    return str(parameters)
