"""MLflow's own pages of a store."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from restok.tracking.place import ARTIFACTS, ONCE, TrackingError, settle

if TYPE_CHECKING:
    from fastapi import FastAPI

QUIET = {"DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}     # and no processes beside the server's own


def pages(uri: str) -> "tuple[FastAPI, Path]":
    """MLflow's own pages of a store, as an application for a web server, and the first page. Raises TrackingError where only
    mlflow-skinny is."""
    settle(ONCE | QUIET)
    try:
        from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
        os.environ |= {BACKEND_STORE_URI_ENV_VAR: uri, ARTIFACT_ROOT_ENV_VAR: (Path.cwd() / ARTIFACTS).as_uri()}
        with warnings.catch_warnings(action="ignore"):
            from mlflow import server
            from mlflow.server.fastapi_app import app
    except ImportError as error:
        raise TrackingError(f"MLflow's pages are not installed ({error}): `make setup` in a clone, elsewhere "
                            "`pip install 'restok[ui]'`. Jobs do without") from error
    return app, Path(server.app.static_folder) / "index.html"
