"""What every figure shares: the style, and how it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from restok.files import atomic_file
from restok.files.outputs import MARK
from restok.reporting.cells import write_csv

STYLE = "restok.reporting.style"   # style.mplstyle in the folder above
SMALL = 7                          # points: the smallest text of a figure


@contextmanager
def drawing(width: float, height: float, out: str | Path, data: pd.DataFrame | None, *sources: str | Path) -> Iterator[Figure]:
    """A figure of so many inches in the reports' style; after the block it is saved."""
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure
        save(figure, out, data, *sources)


def save(figure: Figure, out: str | Path, data: pd.DataFrame | None, *sources: str | Path) -> None:
    """Write the figure as PDF and PNG and its data as CSV, all three with the stem of `out`; without `data`, no CSV.

    The files that it was drawn from are named in the PNG's text chunk "Source", for the page to cite, and as the PDF's
    subject. The PDF has no date: drawn again, it is the same to the byte.
    """
    named = "; ".join(Path(source).as_posix() for source in sources)
    for suffix, metadata in ((".pdf", {"Subject": named, "CreationDate": None}), (".png", {"Source": named, "Software": MARK})):
        drawn = BytesIO()                # a full disk under it, and matplotlib's PDF writer fails by an error of its own
        figure.savefig(drawn, format=suffix[1:], metadata=metadata)
        with atomic_file(Path(out).with_suffix(suffix)) as partial:
            partial.write_bytes(drawn.getvalue())
    if data is not None:
        write_csv(data, Path(out).with_suffix(".csv"))


def sources(data: pd.DataFrame) -> list[str]:
    """The files behind the rows, each once, from their column `source`."""
    return list(dict.fromkeys("; ".join(data["source"]).split("; ")))


def wants_log(*values: pd.Series) -> bool | np.bool_:
    """Whether a linear axis would flatten what it shows: values above zero that span more than a factor of 10."""
    every = pd.concat(values).dropna().astype(float)
    return len(every) > 0 and every.min() > 0 and every.max() > 10 * every.min()


def ends(data: pd.DataFrame, name: str) -> tuple[pd.Series, pd.Series]:
    """Where the bars of a quantity end: at its interval or, of several seeds, a deviation from it; NaN where there is none."""
    value, low, high, sd = (data[f"{name}{end}"].astype(float) for end in ("", "_low", "_high", "_sd"))
    return low.fillna(value - sd), high.fillna(value + sd)


def reach(value: pd.Series, low: pd.Series, high: pd.Series) -> tuple[pd.Series, pd.Series]:
    """How far a bar reaches down and up from a value, 0 where the interval misses it by a rounding error."""
    return (value - low).clip(lower=0), (high - value).clip(lower=0)
