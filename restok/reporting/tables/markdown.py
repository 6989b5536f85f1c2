"""All tables on one Markdown page."""

from pathlib import Path

import pandas as pd

from restok.files import atomic_file
from restok.reporting.items import ITEMS
from restok.reporting.run import ReportError, remedy
from restok.reporting.tables.cells import read_csv
from restok.reporting.tables.reader import numeric, view

TABLES = [*(f"table{n}" for n in range(1, 11)), "release_switches"]


def tables(reports: str | Path, name: str, out: str | Path) -> None:
    """Write the tables that `reports` holds as CSV, Tables 1 to 10 and the release's switches, to `out`; name those that it
    lacks. Raises ReportError where it holds none."""
    paths = {item: Path(reports) / f"{item}.csv" for item in TABLES}
    there = [item for item in TABLES if paths[item].is_file()]
    if not there:
        raise ReportError(f"{reports}: holds no table, such as {paths['table1'].name}; {remedy(paths['table1'])}")
    parts = [f"# ResTok: the tables of {name}", *(_section(item, paths[item]) for item in there)]
    lacking = [f"- {ITEMS[item][1]}: {remedy(paths[item])}" for item in TABLES if item not in there]
    if lacking:
        parts.append("\n".join(["## Not made yet", "", *lacking]))
    with atomic_file(out) as partial:
        partial.write_text("\n\n".join(parts) + "\n", "utf-8")


def _section(item: str, path: Path) -> str:
    _, title, caption = ITEMS[item]
    found = view(item, read_csv(path))
    notes = "\n".join(f"- {_text(note)}" for note in found.notes)
    return "\n\n".join(filter(None, (f"## {title}", caption, _table(found.frame), notes,
                                     f"Every column, with the files behind the numbers: [{path.name}]({path.name})")))


def _table(frame: pd.DataFrame) -> str:
    """In GitHub's dialect; columns of numbers to the right."""
    rules = ["---:" if right else "---" for right in numeric(frame)]
    lines = [frame.columns, rules, *frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)


def _text(cell: str) -> str:
    """As one line that opens no column or tag."""
    return " ".join(cell.split()).replace("|", r"\|").replace("<", "&lt;")
