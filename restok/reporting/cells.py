"""Tables as files, and numbers as text."""

import csv
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from restok.files import atomic_file
from restok.reporting.run import ReportError, fault, require


class Measure(NamedTuple):
    """What was measured: of several seeds the mean and its standard deviation, of one the 95 % interval. None is unknown."""

    value: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """'18.10 ± 0.4' of several seeds, '18.10 [17.00 to 19.20]' of one, blank where it is unknown."""
        if self.value is None:
            return ""
        if self.sd is not None:
            return f"{number(self.value)} ± {self.sd:.2g}"
        return number(self.value) + (f" [{span(self[2:])}]" if self.low is not None else "")


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Typed rows as a table's file has them: a Measure takes the columns NAME, NAME_sd, NAME_low, NAME_high."""
    return pd.DataFrame([{column: cell for name, value in row.items() for column, cell in (
        zip((name, *(f"{name}_{field}" for field in Measure._fields[1:])), value, strict=True)
        if isinstance(value, Measure) else ((name, value),))} for row in rows])


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table with its column names, making the folder where it is missing."""
    with atomic_file(path) as partial:
        table.to_csv(partial, index=False)


def read_csv(path: str | Path) -> pd.DataFrame:
    """A table whose cells are text, exactly as written; a blank cell is an empty string. Raises ReportError."""
    try:
        return _text_table(require(path))
    except ValueError as error:
        raise fault(Path(path), f"not a table in CSV ({error})") from None


def read_settings(path: str | Path, columns: Sequence[str], once: Sequence[str]) -> pd.DataFrame:
    """A table that comes with the repository, in which what stands in the columns `once` is there once. Raises ReportError
    where it is missing, is none, has other columns or no row, or a row twice."""
    comes = f"it comes with the repository: `git checkout {path}`"
    if not Path(path).is_file():
        raise ReportError(f"{path}: missing; {comes}")
    try:
        table = _text_table(path)
    except ValueError as error:
        raise ReportError(f"{path}: not a table in CSV ({error}); mend it, or {comes}") from None
    if list(table.columns) != list(columns):
        raise ReportError(f"{path}: columns {', '.join(table.columns)}; expected {', '.join(columns)}; mend it, or {comes}")
    if table.empty:
        raise ReportError(f"{path}: has columns and no row; mend it, or {comes}")
    keys = table[list(once)]
    if keys.duplicated().any():
        raise ReportError(f"{path}: {', '.join(keys[keys.duplicated()].iloc[0])} is there twice; remove one")
    return table


def _text_table(path: str | Path) -> pd.DataFrame:
    """Raises ValueError, which names the line, where the file is no table with commas, or not in UTF-8. The mark with which
    spreadsheets open such a file is no part of it."""
    reader = csv.reader(StringIO(Path(path).read_text("utf-8-sig"), newline=""), strict=True)
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError("empty")
    columns = rows[0][1]
    if len(columns) == 1 and (other := next((mark for mark in ";\t" if mark in columns[0]), None)):
        raise ValueError(f"{other!r} separates its columns; save it as CSV with commas")
    if len(set(columns)) < len(columns):
        raise ValueError(f"two columns have one name: {', '.join(columns)}")
    for line, cells in rows:
        if len(cells) != len(columns):
            raise ValueError(f"line {line}: {len(cells)} cells for {len(columns)} columns")
    return pd.DataFrame([cells for _, cells in rows[1:]], columns=columns, dtype=str)


def number(value: float | None) -> str:
    """Four significant digits, 18.12 or 0.7100; None, a metric that was not measured, is blank."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1e3 else f"{value:#.4g}"


def short(value: float) -> str:
    """A number for the eye: more than four decimals are rounded, the file keeps them whole."""
    text = str(value)
    return number(value) if len(text.partition(".")[2]) > 4 and "e" not in text else text


def span(interval: Sequence[float] | None, show: Callable[[float], str] = number) -> str:
    """An interval, '2.280 to 2.400'; blank where there is none."""
    return " to ".join(map(show, interval or ()))


def count(parameters: int) -> str:
    """Parameters as Table 1 prints them, to three digits: 662M, 1.33B, 84.5K."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= size:
            return f"{parameters / size:.{max(0, 3 - len(str(int(parameters / size))))}f}{unit}"
    return str(parameters)
