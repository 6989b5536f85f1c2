"""Where the store is, how MLflow is asked there, and what its errors mean."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from restok.errors import RestokError

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"       # of the store in the clone, as MLflow itself would call them
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ASYNC_LOGGING": "false",    # else a dead server is asked for minutes
        "MLFLOW_LOGGING_LEVEL": "WARNING"}


class TrackingError(RestokError):
    """A store that does not answer, or refuses what it is sent."""


def address() -> str:
    """Of the store: MLFLOW_TRACKING_URI, or a file of SQLite in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / DATABASE}"


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def file_of(uri: str) -> Path | None:
    """The file of SQLite that a store is."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def settle(settings: Mapping[str, str] = ONCE) -> None:
    """MLflow's settings of the environment, but for those that the user made."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)


@contextmanager
def asking(uri: str) -> Iterator[None]:
    """What MLflow raises, of a hundred kinds, as TrackingError with its first line."""
    try:
        yield
    except RestokError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        if is_server(uri) and re.search("Max retries|timed out|[Cc]onnection", first):
            first = "does not answer"
        raise TrackingError(f"{uri}: {first}; {_remedy(uri, first)}") from error


def _remedy(uri: str, reason: str) -> str:
    if "schema" in reason:
        return "another version of MLflow wrote it: move the file away, and `restok track-sync` makes it anew from the logs"
    if is_server(uri):
        return "see whether the server of MLFLOW_TRACKING_URI runs. Nothing is lost: call `restok track-sync` again"
    return "see whether the file can be written, and the disk has room. Nothing is lost: call `restok track-sync` again"
