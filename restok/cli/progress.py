"""The verb that shows how far long work is."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from restok.cli.base import argument, option, output, verb
from restok.config.load import ConfigError
from restok.experiments.underway import running, runs_at

if TYPE_CHECKING:
    from restok.experiments.underway import Running

Run = argument(str | None, "Name of a parameter file, such as demo; none for all that have worked here.")
Follow = option(bool, "Show it anew every few seconds, until Ctrl-C.")

AGAIN = 5.0                      # seconds, to follow on a terminal; the notes are as old at most
IN_LOG = 60.0                    # and elsewhere


@verb
def progress(run: Run = None, follow: Follow = False) -> None:
    """Show what long work goes on here, and what stopped unfinished: how far it is, how fast, and the time left.

    It is read from runs/, so it works on any machine that sees this folder."""
    roots = [Path("runs", run)] if run else runs_at()
    if run and not roots[0].is_dir() and not Path("params", f"{run}.yaml").exists():
        there = ", ".join(root.name for root in runs_at()) or "none; give the command at the root of the clone"
        raise ConfigError(f"run {run!r}: neither runs/{run} nor params/{run}.yaml is here. Runs that have worked here: {there}")
    console = output()
    if not follow:
        console.print(_shown(roots))
        return
    try:
        _follow(console, roots)
    except KeyboardInterrupt:                            # which is how it ends
        pass


def _follow(console: Console, roots: Sequence[Path]) -> None:
    if not console.is_terminal:
        while True:
            console.print(_shown(roots))
            time.sleep(IN_LOG)
    with Live(_shown(roots), console=console, auto_refresh=False, transient=False) as live:
        while True:
            time.sleep(AGAIN)
            live.update(_shown(roots), refresh=True)


def _shown(roots: Sequence[Path]) -> Group:
    found = {root: running(root) for root in roots}
    tables = [_table(root.name, works) for root, works in found.items() if works]
    if any(work.stopped for works in found.values() for work in works):
        tables.append(Text("What stopped goes on from there by the command that began it.", "dim"))
    return Group(*(tables or [Text(f"Nothing long goes on in {', '.join(map(str, roots)) or 'runs'}, or stopped unfinished.")]))


def _table(run: str, works: "Sequence[Running]") -> Table:
    table = Table(title=run, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for name, side in (("work", "left"), ("done", "right"), ("left", "left"), ("rate", "right"), ("since", "right"),
                       ("where", "left")):
        table.add_column(name, justify=side, no_wrap=name in ("done", "since"), overflow="fold")
    for work in works:
        table.add_row(*_cells(work), style="red" if work.stopped else None)
    return table


def _cells(work: "Running") -> Iterator[str]:
    yield str(work.place)
    yield work.percent
    yield f"stopped {_when(work.updated)}: {work.stopped}" if work.stopped else work.time_left.removesuffix(" left")
    yield "" if work.stopped else work.speed
    yield _when(work.began)
    yield f"{work.host}, job {work.job}" if work.job else f"{work.host}, process {work.pid}"


def _when(seconds: float) -> str:
    """'04:52', of another day with it."""
    then, today = time.localtime(seconds), time.localtime()
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%b %d %H:%M", then)
