"""What tables and figures are made from, and who makes them."""

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

from restok.config import Params
from restok.experiments import Item, Tree
from restok.reporting.published import Published
from restok.reporting.tables.table import Table


@dataclass(frozen=True)
class Inputs:
    """The results of a parameter file, what the paper printed, and what is said of it."""

    tree: Tree
    params: Params
    published: Published
    orders: Path                # params/orders.csv
    switches: Path              # params/release_switches.csv


def draw(inputs: Inputs, item: Item, out: Path) -> None:
    """Write a figure beside `out`, as PNG, PDF and CSV."""
    resolve_name(f"restok.reporting.{item.made_by}")(inputs, item.name, out)


def table_of(inputs: Inputs, item: Item) -> Table | None:
    """A table or chart, or the numbers that the page shows below a figure; None where it shows none."""
    maker = item.numbers if item.kind == "figure" else item.made_by
    return resolve_name(f"restok.reporting.{maker}")(inputs, item.name) if maker else None
