"""All tables on one Markdown page."""

from pathlib import Path

from restok.experiments import Item
from restok.experiments.items import items
from restok.files import atomic_file
from restok.reporting.captions import measured_on
from restok.reporting.inputs import Inputs, table_of
from restok.reporting.tables.table import Table


def tables(inputs: Inputs, out: str | Path) -> list[Item]:
    """Write every table whose file is beside `out`, and how the others are made. Returns those that it shows."""
    parts, lacking, shown = [], [], []
    for item in items(inputs.params, inputs.tree.sheet, "table", "chart"):
        file = Path(out).with_name(f"{item.name}.csv")
        if not file.is_file():
            lacking.append(f"- {item.title}: make it with `snakemake --cores 2 {file.as_posix()}`")
            continue
        table = table_of(inputs, item)
        shown.append(item)
        parts.append("\n\n".join(filter(None, (
            f"## {item.title}", f"{item.caption} {measured_on(inputs, item)}", _table(table),
            "\n".join(f"- {_text(note)}" for note in table.notes),
            f"Every column, with the files behind the numbers: [{item.name}.csv]({item.name}.csv)"))))
    if lacking:
        parts.append("\n".join(["## Not made yet", "", *lacking]))
    with atomic_file(out) as partial:
        partial.write_text("\n\n".join([f"# ResTok: the tables of {inputs.tree.sheet.run}", *parts]) + "\n", "utf-8")
    return shown


def _table(table: Table) -> str:
    """In GitHub's dialect; columns of numbers to the right."""
    rules = ["---:" if right else "---" for right in table.numeric]
    lines = [table.shown.columns, rules, *table.shown.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)


def _text(cell: str) -> str:
    """As one line that opens no column or tag."""
    return " ".join(cell.split()).replace("|", r"\|").replace("<", "&lt;")
