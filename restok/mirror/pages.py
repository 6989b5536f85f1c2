"""MLflow's pages on this machine alone, with addresses that stay: /restok/RUN, /restok/RUN/VIEW, /restok/PATH of a result."""

import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import TYPE_CHECKING

from restok import signals
from restok.errors import RestokError
from restok.mirror.views import View
from restok.tracking import Store, TrackingError, pages

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

HOST = "127.0.0.1"
GRACE = 3                            # seconds that open connections have at the end
# For a browser that was never here: MLflow's pages for trainings, not for chat programs, whose assistant is not offered at all.
# The bare address leads to the first run.
SETTINGS = {"mlflow.workflowType_v1": "machine_learning", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True}
FIRST = """<script>
for (const [name, value] of Object.entries(SETTINGS))
  if (localStorage.getItem(name) === null) localStorage.setItem(name, JSON.stringify(value));
if (location.hash === "") location.replace(START);
</script><style>[data-assistant-ui] { display: none !important }</style>"""
ASSISTANT = "/ajax-api/3.0/mlflow/assistant/{rest:path}"            # what is sent there runs commands on this machine
ABSENT = """<!doctype html><meta charset="utf-8"><title>Not in MLflow</title><p>MLflow has no run and no view of
<code>PATH</code>.</p><p>A result that is there on disk is sent by <code>restok track-sync</code>.</p>
<p>There are these views: KNOWN.</p>"""


class PortError(RestokError):
    """A port that is taken, or not for us."""


def listen(port: int) -> socket.socket:
    """On loopback; 0: a port that is free. Raises PortError."""
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PortError(f"port {port} of {HOST}: {reason}; name another, such as `restok ui --port 5001`") from error


def place(store: Store, view: View | None = None) -> str:
    """Of an experiment, or of a view of it, behind the address of a server."""
    shown = f"&viewStateShareKey={view.key}" if view else ""
    return f"/#/experiments/{store.experiment.experiment_id}/runs?workflowType=machine_learning{shown}"


def serve(listening: socket.socket, stores: Mapping[str, Store], views: Mapping[str, Sequence[View]],
          ready: Callable[[], None]) -> None:
    """Until a signal asks to leave; `ready` is called once the pages answer. Raises TrackingError."""
    signals.defer()
    uri = next(iter(stores.values())).uri
    app, index = pages(uri)
    import uvicorn
    app.router.routes[:0] = _routes(index, stores, views)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE))
    thread = Thread(target=server.run, args=([listening],))       # beside the thread that hears signals
    thread.start()
    told = False
    try:
        while thread.is_alive() and not signals.asked():
            if server.started and not told:
                ready()
                told = True
            thread.join(0.1)
    finally:                             # whatever `ready` raises, as where nobody reads what it prints
        server.should_exit = True
        thread.join()
    if not told and not signals.asked():
        raise TrackingError(f"{uri}: MLflow's pages did not start; what is above says why")


def _routes(index: Path, stores: Mapping[str, Store], views: Mapping[str, Sequence[View]]) -> "list[Route]":
    from starlette.responses import HTMLResponse, RedirectResponse
    from starlette.routing import Route
    first = FIRST.replace("SETTINGS", json.dumps(SETTINGS)).replace("START", json.dumps(place(next(iter(stores.values())))))
    shown = index.read_text("utf-8").replace("<head>", f"<head>{first}", 1)
    known = ", ".join(f'<a href="/restok/{run}/{view.key}">{run}: {escape(view.title)}</a>'
                      for run, each in views.items() for view in each)

    def start(request: "Request") -> "Response":
        return HTMLResponse(shown, headers={"cache-control": "no-cache"})

    def lead(request: "Request") -> "Response":
        path = request.path_params["path"].strip("/")
        if target := _target(path, stores, views):
            return RedirectResponse(target, headers={"cache-control": "no-store"})
        return HTMLResponse(ABSENT.replace("PATH", escape(path)).replace("KNOWN", known), 404)

    def refuse(request: "Request") -> "Response":
        return HTMLResponse("`restok ui` does not offer this", 403)

    return [Route("/", start), Route("/restok/{path:path}", lead),
            Route(ASSISTANT, refuse, methods=["POST", "PUT", "PATCH", "DELETE"])]


def _target(path: str, stores: Mapping[str, Store], views: Mapping[str, Sequence[View]]) -> str | None:
    """Where 'demo', 'demo/table2' or 'results/demo/evaluation/main/1M' is; of a file in the folder of a result, the result."""
    words = path.split("/")
    if words[0] in stores:
        found = [view for view in views[words[0]] if [view.key] == words[1:]]
        return place(stores[words[0]], found[0]) if found else None if words[1:] else place(stores[words[0]])
    if len(words) < 2 or words[1] not in stores or not re.fullmatch(r"[\w./@+-]+", path):
        return None
    store = stores[words[1]]
    for above in (PurePosixPath(path), *PurePosixPath(path).parents):
        if run := store.newest(str(above)):
            return f"/#/experiments/{store.experiment.experiment_id}/runs/{run}"
    return None
