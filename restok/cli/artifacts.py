"""The verbs around what is kept: by phase for DVC, put away, and taken over from elsewhere."""

from pathlib import Path
from typing import Literal

from restok.cli.base import Overrides, ParamsFile, option, out_file, read, say, verb
from restok.cli.reports import InputOptions
from restok.experiments import Tree, artifacts, load_sheet
from restok.files import write_json

Rows = option(Literal["main", "all"], "Rows of the sheet: those that show the run's own models, or all.")


@verb
def rows(params: ParamsFile, out: out_file("rows"), rows: Rows = "all", overrides: Overrides = None) -> None:
    """Write what each row of experiments.tsv adds to a parameter file, by phase of the chain, as DVC tracks it."""
    sheet = load_sheet(params, overrides or [])
    changes = artifacts.changes(Tree(Path("results", sheet.run), sheet), read(params, overrides), rows)
    write_json(out, {"kind": "rows", **changes})


@verb
def metrics(inputs: InputOptions, out: out_file("metrics"), rows: Rows = "all") -> None:
    """Write the distances and the entropy of each row and checkpoint, with their intervals, as `dvc metrics` reads them."""
    from restok.reporting.record import require_record, shown, write_record
    from restok.reporting.summary import summary
    require_record(out, "metrics")
    given = inputs.load()
    write_json(out, {"kind": "metrics", **summary(given, rows)})
    write_record("metrics", out, shown(given.tree, given.params), artifacts.measured(given.tree, given.params, rows), [out])


@verb
def prune(params: ParamsFile, overrides: Overrides = None) -> None:
    """Move the results and reports that no row of experiments.tsv makes any more, of a run in this folder, out of results/ and
    reports/ to runs/RUN/removed/TIME. Nothing is deleted."""
    sheet = load_sheet(params, overrides or [])
    tree = Tree(Path("results", sheet.run), sheet)
    for source, target in artifacts.prune(tree, read(params, overrides), Path("reports", sheet.run), Path("runs", sheet.run)):
        say(f"{source}: no row makes it any more; moved to {target}")


@verb
def sync() -> None:
    """After `dvc pull` or `dvc checkout`: tell Snakemake that what lies here is what dvc.lock says, so that it makes nothing
    again. Refused where files, settings or commands differ from dvc.lock."""
    from restok.stages.sync import sync
    sync(say)
