"""The verbs around MLflow: sending what lies on disk."""

from restok import signals
from restok.cli.base import argument, option, say, verb

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
    ended = until_parent_ends() if child else lambda: signals.asked() is not None
    sync.follow(runs or (), ended)
