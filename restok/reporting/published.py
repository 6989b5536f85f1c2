"""params/published.csv: what the paper prints, each number with its source; what is not known is blank."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from restok.reporting.cells import read_settings

COLUMNS = ("item", "row", "quantity", "value", "source")


class Published:
    """The values as printed, by item (table1, fig7), row and quantity; the file is read when it is first asked for one, for
    few figures need it. Raises ReportError, then, where it is missing or has a value twice."""

    def __init__(self, path: str | Path):
        self.path = path

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str], Any]:
        table = read_settings(self.path, COLUMNS, COLUMNS[:3])
        return {(cell.item, cell.row, cell.quantity): cell for cell in table.itertuples(index=False)}

    def rows(self, item: str) -> list[str]:
        """The paper's rows of an item, in its order."""
        return list(dict.fromkeys(cell.row for cell in self._cells.values() if cell.item == item))

    def quantities(self, item: str, row: str) -> list[str]:
        return [cell.quantity for cell in self._cells.values() if (cell.item, cell.row) == (item, row)]

    def value(self, item: str, row: str, quantity: str) -> str:
        """As printed; blank where it is unknown, or the row is not the paper's."""
        place = (item, row, quantity)
        return self._cells[place].value if place in self._cells else ""

    def source(self, item: str, row: str, quantity: str) -> str:
        return self._cells[item, row, quantity].source

    def beside(self, item: str, row: str, quantities: Iterable[str]) -> dict[str, str]:
        """The columns QUANTITY_paper of a row."""
        return {f"{quantity}_paper": self.value(item, row, quantity) for quantity in quantities}
