"""The verbs that come before anything long."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from restok.cli.base import AnyParams, Overrides, Written, option, read, verb
from restok.config.load import load_protocol
from restok.experiments import load_sheet
from restok.experiments.demand import judges, wanted
from restok.progress import CONSOLE

if TYPE_CHECKING:
    from restok.stages.fetch import Held

FetchedFile = option(Path | None, "JSON file to write.", "--out", "-o", writes=Written(False, ("fetch",)))


@verb
def fetch(params: AnyParams = None, out: FetchedFile = None, overrides: Overrides = None) -> None:
    """Bring and verify every pretrained network that the parameters, and the rows of experiments.tsv beside them, need. All
    other verbs run without internet."""
    from restok.stages.fetch import fetch
    if params:
        networks = wanted(read(params, overrides), load_sheet(params, overrides or []))
    else:
        networks = judges(load_protocol(overrides or []))
    fetch(networks, out, print_networks)


def print_networks(networks: Sequence["Held"]) -> None:
    """A line a network: what it is, and where it lies."""
    table = Table("network", "MB", "sha256", "verified by", "licence", "file")
    for column in table.columns:
        column.overflow = "fold"
    for held in networks:
        size = f"{held.bytes / 1e6:,.1f}" if held.bytes else ""
        table.add_row(held.network, size, (held.sha256 or "")[:12], held.verified or "[bold red]no[/]", held.licence or "",
                      held.file or "missing")
    CONSOLE.print(table)
