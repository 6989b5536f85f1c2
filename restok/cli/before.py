"""The verbs that come before anything long."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from restok.cli.base import AnyParams, Overrides, ParamsFile, Written, option, read, verb
from restok.cli.measuring import Judges, judged_by
from restok.config.load import ConfigError, load_protocol
from restok.experiments import load_sheet
from restok.experiments.demand import judges, wanted
from restok.progress import CONSOLE

if TYPE_CHECKING:
    from restok.stages.doctor.examination import Examination
    from restok.stages.fetch import Held

FetchedFile = option(Path | None, "JSON file to write.", "--out", "-o", writes=Written(False, ("fetch",)))
ExaminedFile = option(Path | None, "JSON file to write.", "--out", "-o", writes=Written(False, ("doctor",)))
ProfileName = option(str | None, "Profile of Snakemake, such as slurm: asks, too, whether its machines grant what the jobs of "
                     "this run ask for. Nothing is submitted.")


@verb
def fetch(params: AnyParams = None, features: Judges = None, out: FetchedFile = None, overrides: Overrides = None) -> None:
    """Bring and verify every pretrained network that the parameters, and the rows of experiments.tsv beside them, need. All
    other verbs run without internet."""
    from restok.stages.fetch import fetch
    overrides = [*(overrides or []), *judged_by(features)]
    networks = wanted(read(params, overrides), load_sheet(params, overrides)) if params else judges(load_protocol(overrides))
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


@verb
def doctor(params: ParamsFile, out: ExaminedFile = None, profile: ProfileName = None, overrides: Overrides = None) -> None:
    """Look for all that a run needs (images, classes, weights, reference, disk, GPU memory), and estimate disk and hours of
    each step from a measured run of at most two minutes. Ends with 1 where something is missing, and says what to do."""
    from restok.stages.doctor.examination import examine
    settings, sheet = read(params, overrides), load_sheet(params, overrides or [])
    site = []
    if profile is not None:
        from restok.stages.doctor.site import examine_site
        if overrides:
            raise ConfigError("--set: jobs of the workflow know the parameter file alone; leave out --set, or --profile")
        site = examine_site(profile, params, sheet.run)
    examine(settings, sheet, out, print_examination, site=site)


def print_examination(found: "Examination") -> None:
    """What was found, what disk it takes, and how long."""
    table = Table(title="What is there", show_header=False)
    for finding in found.findings:
        says = finding.says.partition(";")[0] if finding.state == "fault" else finding.says       # the remedy comes in the end
        table.add_row(finding.state, finding.what, Text(says), style="bold red" if finding.state == "fault" else None)
    CONSOLE.print(table)
    if found.needs:
        _print_scaled("What it takes", ("GB on disk", *((need.what, need.main / 1e9, need.sheet / 1e9, need.scaled_from)
                                                        for need in found.needs)))
        unit = "GPU-hours" if any(row.gpu for row in found.hours) else "hours"
        where = "on a GPU: counted, not measured" if found.estimate == "counted" else f"on {found.device}"
        _print_scaled(f"How long, {where}", (f"{unit} of one process", *(
            (row.verb + " (CPU)" * (unit != "hours" and not row.gpu), row.main, row.sheet, row.scaled_from)
            for row in found.hours)))


def _print_scaled(title: str, rows: Sequence[tuple | str]) -> None:
    """Estimates, of the parameter file's own run and of all rows of the sheet."""
    table = Table(rows[0], "main run", "all rows", "scaled from", title=title)
    for what, main, sheet, scaled_from in rows[1:]:
        table.add_row(what, *("" if value is None else f"{value:,.3g}" for value in (main, sheet)), scaled_from)
    CONSOLE.print(table)
