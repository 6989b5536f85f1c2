"""From the results to each figure: (inputs, item's name, file to write)."""

from pathlib import Path

from restok.reporting import figures
from restok.reporting.cells import frame, short
from restok.reporting.inputs import Inputs
from restok.reporting.measured import best, checkpoints
from restok.reporting.run import read
from restok.reporting.tables.orders import claims, joined
from restok.reporting.tables.table import Table, column, one, seeds


def fig5(inputs: Inputs, item: str, out: Path) -> None:
    row = best(inputs.tree, item)
    figures.fig5(inputs.tree.path("panel", row.trials[0], row.first.label), out)


def fig6(inputs: Inputs, item: str, out: Path) -> None:
    row = best(inputs.tree, item)
    classes = read(inputs.tree.path("data") / "manifest.json")["splits"]["train"]["classes"]
    figures.fig6(inputs.tree.path("samples", row.trials[0], row.first.label), classes, out)


def fig7(inputs: Inputs, item: str, out: Path) -> None:
    figures.fig7(figures.fig7_data(checkpoints(inputs.tree, item)), out)


def fig8(inputs: Inputs, item: str, out: Path) -> None:
    figures.fig8(inputs.tree.path("layout"), out)


def fig9(inputs: Inputs, item: str, out: Path) -> None:
    figures.fig9(inputs.tree.path("layout"), out)


def codebook(inputs: Inputs, item: str, out: Path) -> None:
    figures.codebook(figures.codebook_data(inputs.tree, item), out)


def guidance(inputs: Inputs, item: str, out: Path) -> None:
    figures.guidance_curves(figures.guidance_data(inputs.tree, item), out)


def fig7_table(inputs: Inputs, item: str) -> Table:
    """The numbers below Fig. 7, and the paper's order of its checkpoints."""
    measured = checkpoints(inputs.tree, item)
    rows = figures.fig7_rows(measured)
    said = claims(item, measured, inputs.orders, inputs.published.rows(item))
    notes = [f"The paper's order, of {label}: {joined(said, label)}." for label in said]
    return Table(frame(rows), [
        *((name, column(rows, name)) for name in ("checkpoint", "step")),
        *((f"{stage} {one(column(rows, f'{stage}_metric'))} ↓", column(rows, f"{stage}_distance"))
          for stage in ("reconstruction", "generation"))], [seeds(rows), *notes])


def codebook_table(inputs: Inputs, item: str) -> Table:
    """The numbers below the figure of the codebook."""
    data = figures.codebook_data(inputs.tree, item)
    titles = {"level": "level", "tokens": "tokens", "used": "codes used", "usage": "use of the codebook (share)",
              "entropy": "entropy (bits)"}
    return Table(data, [(title, [short(cell) for cell in data[name]]) for name, title in titles.items()],
                 [f"Checkpoint {one(data['checkpoint'])}, over {one(data['n'])} reconstructions."])
