"""The verb that puts rows of the sheet side by side."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from restok.cli.base import Overrides, argument, option, output, verb
from restok.cli.reports import Experiments, chosen
from restok.config.load import ConfigError, load_choice
from restok.experiments import Tree, load_sheet

if TYPE_CHECKING:
    from restok.reporting.beside import Metric
    from restok.reporting.compare import Comparison, Cost

Names = argument(list[str] | None, "Rows of params/experiments.tsv, two or more, such as main or restok; of one seed, "
                 "restok.10086; at a checkpoint, main@750k. Or results of `restok evaluate`, files in .json.")
ItemName = option(str | None, "Instead of rows: a table or figure, such as table2, for all rows that it shows.", "--item")
OwnParams = option(Path | None, "Parameter file; else that of the run in run.yaml.", "--params", "-p")
Results = option(Path | None, "Run folder; else results/ and the parameter file's name.")
AsJson = option(bool, "Print everything as JSON.", "--json")

WIDE = 160                               # characters of a line where no terminal limits them
CELL = 26                                # at most of a column, but for the first
TRAINED = "tokenizer", "generator"
OF_IMAGES = "95 % intervals that do not overlap"
STYLES = {"better": "green", "worse": "red", "undecided": "dim", "equal": "dim", "same": "dim"}
Line = tuple[str, Sequence[Text | str]]


@verb
def compare(rows: Names = None, item: ItemName = None, params: OwnParams = None, results: Results = None,
            as_json: AsJson = False, experiments: Experiments = None, overrides: Overrides = None) -> None:
    """Put rows of experiments.tsv side by side: settings that differ, what was measured, with intervals, and the cost. Or
    results of `restok evaluate`, whatever made their images: which differences are larger than chance.

    The first one is what the others are held against."""
    from restok.reporting.compare import compare
    if rows and len(rows) > 1 and all(row.endswith(".json") for row in rows):
        if item or params or results or experiments or overrides:
            raise ConfigError("compare: results in files know how they were measured; only --json goes with them")
        _compare_files(rows, as_json)
        return
    if bool(item) == bool(rows) or (rows and len(rows) < 2):
        raise ConfigError("compare: name two rows or more, such as `restok compare baseline restok`, or two results, such as "
                          "`restok compare a.json b.json`, or --item table2 for all rows that a table shows")
    params = params or Path("params", f"{load_choice().run}.yaml")
    tree = Tree(results or Path("results", params.stem), load_sheet(params, overrides or [], experiments))
    found = compare(tree, rows or (), item and chosen(item, "table", "chart", "figure").name)
    if as_json:
        print(json.dumps(found.as_json(), indent=2, allow_nan=False))
    else:
        _show(found, output(WIDE))


def _compare_files(names: list[str], as_json: bool) -> None:
    from restok.reporting.files import compare_files
    found = compare_files([Path(name) for name in names])
    if as_json:
        print(json.dumps({"results": names, "metrics": [one.as_json() for one in found]}, indent=2, allow_nan=False))
        return
    console = output(WIDE)
    lines = [(f"{one.name} {'↓' if one.lower else '↑'}", _values(one)) for one in found if one.known]
    _tables(console, found[0].of.capitalize(), names, lines, "nothing was measured")
    words = {against.verdict for one in found for against in one.against if against}
    for text in _meanings(words, names[0], OF_IMAGES):
        console.print(Text(text, "dim"))
    for reason, missing in _refused(names, found).items():
        console.print(Text(f"Not measured: {', '.join(missing)}: {reason}.", "dim"))


def _show(found: "Comparison", console: Console) -> None:
    from restok.reporting.tables.table import how
    names = [row.key if row.key.startswith(row.trials[0].id) else f"{row.key}\n{row.trials[0].id}" for row in found.rows]
    _tables(console, "Settings that differ", names, list(found.settings.items()), "none")
    measured = found.metrics
    titles = {"reconstruction": "Reconstruction", "generation": "Generation", "unguided": "Generation without guidance"}
    for of, title in titles.items():
        lines = [(f"{one.name} {'↓' if one.lower else '↑'}", _values(one)) for one in measured
                 if one.of == of and one.known and not one.again]
        if lines or of != "unguided":
            _tables(console, title, names, lines, "nothing was measured")
    _tables(console, "Cost", names, _costs(found), "unknown")
    for text in (*how([row.about for row in found.rows]), *_reading(found, measured)):
        console.print(Text(text, "dim"))
    for reason, missing in _refused(names, measured).items():
        console.print(Text(f"Not measured: {', '.join(missing)}: {reason}.", "dim"))


def _tables(console: Console, title: str, names: Sequence[str], lines: Sequence[Line], nothing: str) -> None:
    """One table, or as many as it takes for the columns to fit, each with the first row of the sheet."""
    console.print(Text(title, "bold"))
    if not lines:
        console.print(f"  {nothing}\n")
        return
    widths = [min(CELL, max(_width(cells) for cells in (names[at], *(values[at] for _, values in lines))))
              for at in range(len(names))]
    left = console.width - max(len(name) for name, _ in lines) - 2
    others = list(range(1, len(names)))
    while others:
        taken = [0]
        while others and (len(taken) == 1 or sum(widths[at] + 2 for at in (*taken, others[0])) <= left):
            taken.append(others.pop(0))
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("", overflow="fold")
        for at in taken:
            table.add_column(names[at], max_width=CELL, overflow="fold")
        for name, values in lines:
            table.add_row(name, *(values[at] for at in taken))
        console.print(table)
        console.print()


def _width(cell: Text | str) -> int:
    return max(map(len, str(cell).split("\n")))


def _values(one: "Metric") -> list[Text]:
    """Each value with its interval and, but for the first row's, how it stands to that."""
    from restok.reporting.cells import number
    cells = []
    for measure, why, against in zip(one.measures, one.refused, one.against, strict=True):
        cell = Text(str(measure._replace(low=None)) or ("refused" if why else "-"))
        if measure.low is not None:
            cell.append(f"\n[{number(measure.low)}, {number(measure.high)}]")
        if against:
            difference = "" if against.verdict in ("same", "equal") else f"{against.difference:+.3g} "
            cell.append(f"\n{difference}{against.verdict}", STYLES[against.verdict])
        cells.append(cell)
    return cells


def _costs(found: "Comparison") -> list[Line]:
    from restok.reporting.cells import count

    def memory(cost: "Cost") -> str:
        own, gpu = cost.memory("memory_gb"), cost.memory("gpu_memory_gb")
        return ", ".join(f"{size:.3g} GB{of}" for size, of in ((own, ""), (gpu, " of GPU")) if size is not None)

    lines: list[Line] = [(stage, [str(cost) for cost in costs]) for stage, costs in found.costs.items()]
    if lines:
        others = any(cost.shared for costs in found.costs.values() for cost in costs)
        lines.append(("all, but for what others made" if others else "all", [str(cost) for cost in found.together]))
    lines += [(f"{stage}, peak memory", [memory(cost) for cost in costs]) for stage, costs in found.costs.items()
              if stage in TRAINED and any(map(memory, costs))]
    return lines + [(name, ["" if value is None else count(value) for value in values])
                    for name, values in found.sizes.items() if any(values)]


def _reading(found: "Comparison", measured: "Sequence[Metric]") -> list[str]:
    """What the words in the tables say, and what they do not."""
    words = {against.verdict for one in measured for against in one.against if against}
    several = all(len(row.trials) > 1 for row in found.rows)
    test = "Student's t of both rows' seeds (95 %)" if several else f"{OF_IMAGES}, of one seed each"
    told = _meanings(words, found.rows[0].key, test)
    if len({len(row.trials) > 1 for row in found.rows}) > 1:
        told.append("One seed beside several is undecided: only as many seeds of both could say.")
    if "same" in words:
        told.append("same: both rows have this result in common.")
    if again := dict.fromkeys(one.name for one in measured if one.known and one.again):
        told.append(f"As other programs count it (--json has the values): {', '.join(again)}.")
    return told


def _meanings(words: set[str], first: str, test: str) -> list[str]:
    told = [f"better, worse: than {first}, by {test}."] if words & {"better", "worse"} else []
    if "undecided" in words:
        told.append("undecided: chance may be the reason for the difference; that does not say that the two are alike.")
    return told


def _refused(names: Sequence[str], measured: "Sequence[Metric]") -> dict[str, list[str]]:
    """By reason, what was not measured, and of which rows, if not of all."""
    found: dict[str, list[str]] = {}
    for one in measured:
        for reason in dict.fromkeys(filter(None, one.refused)):
            of = [name.partition("\n")[0] for name, why in zip(names, one.refused, strict=True) if why == reason]
            found.setdefault(reason, []).append(f"{one.of} {one.name}" + f" of {', '.join(of)}" * (len(of) < len(names)))
    return found
