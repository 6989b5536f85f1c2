"""The verbs around MLflow: sending what lies on disk, and looking at it."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from restok import signals
from restok.cli.base import argument, option, say, verb
from restok.config.load import ConfigError

if TYPE_CHECKING:
    from restok.mirror.views import View
    from restok.tracking import Store

Runs = argument(list[str] | None, "Names of parameter files, such as demo; none for all that have results here.")


@verb
def track_sync(runs: Runs = None, follow: option(bool, "Go on, and send what comes, until Ctrl-C.") = False,
               child: option(bool, "End, after a last look, with the process that holds standard input.", hidden=True) = False,
               ) -> None:
    """Send to MLflow what its store does not have yet: curves, values, reports and models, from the files in results/, runs/
    and reports/.

    The store is that of MLFLOW_TRACKING_URI, or mlflow.db in this folder. Call it as often as you like: nothing is sent twice.
    Delete mlflow.db, and it is made anew."""
    from restok.mirror import sync
    from restok.mirror.child import until_parent_ends
    from restok.tracking import address
    if not follow:
        for run, count in sync.sync(runs or ()):
            say(f"{run}: {count} results are in {address()}")
        return
    signals.defer()
    alone = until_parent_ends() if child else None         # signals to its group are for the work beside it, but for this one
    sync.follow(runs or (), lambda: alone() or signals.asked() == "SIGTERM" if alone else signals.asked() is not None)


@verb
def ui(runs: Runs = None, port: option(int, "Of this machine; 0 takes one that is free.") = 5000,
       sync: option(bool, "While open, send what lies on disk and what comes.") = True) -> None:
    """Open MLflow's pages on this machine, with a view of each table that compares rows; Ctrl-C ends them.

    They show the store of MLFLOW_TRACKING_URI, or mlflow.db in this folder. Where that is a server, its addresses are printed,
    and nothing is opened."""
    from restok.mirror import child, pages
    from restok.mirror.sync import known
    from restok.tracking import address, is_server
    if not (wanted := known(runs or ())):
        raise ConfigError("no results of any run here: make some (`make demo`), or go to the folder of a clone that has some")
    if is_server(address()):
        stores, views = _prepared(wanted)
        for run in wanted:
            _say_addresses(run, address().rstrip("/") + pages.place(stores[run]),
                           {view.title: address().rstrip("/") + pages.place(stores[run], view) for view in views[run]})
        return
    listening = pages.listen(port)
    stores, views = _prepared(wanted)
    base = f"http://{pages.HOST}:{listening.getsockname()[1]}/restok"

    def ready() -> None:
        for run in wanted:
            _say_addresses(run, f"{base}/{run}", {view.title: f"{base}/{run}/{view.key}" for view in views[run]})
        say("Ctrl-C ends it. From another machine, first: "
            f"ssh -L {listening.getsockname()[1]}:{pages.HOST}:{listening.getsockname()[1]} THIS_MACHINE")

    with child.running(*wanted) if sync else nullcontext():
        pages.serve(listening, stores, views, ready)


def _prepared(runs: list[str]) -> "tuple[dict[str, Store], dict[str, list[View]]]":
    """Their experiments, in which the views are, and the views."""
    from restok.experiments import Tree, load_sheet
    from restok.mirror import views
    from restok.tracking import Store
    stores, found = {run: Store(run) for run in runs}, {}
    for run, store in stores.items():
        tree = Tree(Path("results", run), load_sheet(Path("params", f"{run}.yaml")))
        found[run] = views.views(tree, store.metrics())
        store.tag_experiment(views.tags(found[run]))
    return stores, found


def _say_addresses(run: str, address: str, views: dict[str, str]) -> None:
    width = max(map(len, views))
    say(f"{run:{width}}  {address}")
    for title, place in views.items():
        say(f"{title:{width}}  {place}")
