"""A table: every column for its file, few for a reader, and notes on how it was measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

PAPERS = {"rfid": ("rFID", "rFID"), "gfid": ("gFID", "FID"), "is": ("IS", "IS")}   # the paper's names, and of our metrics
Rows = Sequence[Mapping[str, Any]]


class Table(NamedTuple):
    """`frame` is the file, `columns` what a reader sees: titles, which may be equal, and cells; `own` are this run's rows."""

    frame: pd.DataFrame
    columns: list[tuple[str, Sequence]]
    notes: Sequence[str] = ()
    own: tuple[int, ...] = ()

    @property
    def shown(self) -> pd.DataFrame:
        """The reader's columns as text."""
        cells = zip(*(["" if cell is None else str(cell) for cell in column] for _, column in self.columns), strict=True)
        return pd.DataFrame(cells, columns=[title for title, _ in self.columns])

    @property
    def numeric(self) -> list[bool]:
        """The reader's columns that hold numbers alone, to be set to the right."""
        return [all(cell[:1].isdigit() or not cell for cell in column) for column in self.shown.to_numpy().T]


def column(rows: Rows, name: str) -> list:
    return [row[name] for row in rows]


def one(cells: Iterable) -> str:
    """What all rows say; where they differ, all of it."""
    return ", ".join(dict.fromkeys(str(cell) for cell in cells if cell not in ("", None)))


def with_paper(rows: Rows, name: str, title: str) -> list[tuple[str, Sequence]]:
    """Our values under our metric's name and, where the paper prints some, those beside them under its own."""
    theirs = PAPERS[name][0] if name in PAPERS else title.rstrip(" ↓↑")
    return side_by_side(title, column(rows, name), theirs, column(rows, f"{name}_paper"))


def side_by_side(title: str, ours: Sequence, theirs: str, paper: Sequence[str]) -> list[tuple[str, Sequence]]:
    return [(title, ours), *([(f"{theirs}, paper", paper)] if any(paper) else [])]


def how(rows: Rows) -> list[str]:
    """What the spread is, and which of the paper's values do not compare. What was measured on what, the caption says."""
    return [seeds(rows), *_foreign(rows)]


def seeds(rows: Rows) -> str:
    several, single = ([row for row in rows if (row["n_seeds"] > 1) == many] for many in (True, False))
    texts = []
    if several:
        n = one(column(several, "n_seeds"))
        texts.append(f"Mean ± standard deviation over {n} seeds ({one(column(several, 'seeds'))}).")
    if single:
        texts.append(f"One seed ({one(column(single, 'seeds'))}); in brackets the 95 % interval, for the chance of these "
                     "images and for this seed; what another seed would give is not known.")
    return " ".join(texts)


def _foreign(rows: Rows) -> list[str]:
    """A warning where the paper's values stand beside another metric."""
    foreign = [metric for name in ("rfid", "gfid") if any(row.get(f"{name}_paper") for row in rows)
               and (metric := one(column(rows, f"{name}_metric"))) != PAPERS[name][1]]
    return [f"The paper's values are of Inception's features: {', '.join(foreign)} does not compare with them."
            ] if foreign else []
