"""MLflow, of which nothing else here knows: a store of runs, to which a mirror writes what lies on disk.

Everything may be written twice: what the store has already is left as it is.
"""

import json
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock

from restok.errors import RestokError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from mlflow.entities import Experiment, LoggedModel, Run

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"       # of the store in the clone, as MLflow itself would call them
GOING_ON = "@going on"                                 # ends the key of what is known by its place alone
BATCH = 1000                                           # metrics that MLflow takes in one call, at the most
LONGEST = 500                                          # characters of a parameter or tag: what is longer is cut
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ASYNC_LOGGING": "false",    # else a dead server is asked for minutes
        "MLFLOW_LOGGING_LEVEL": "WARNING"}
QUIET = {"DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}     # and no processes beside the server's own
MODEL_FILES = "config.json", "manifest.json", "metrics.json", "model.safetensors"      # and no state to train on from
log = logging.getLogger("restok")


class TrackingError(RestokError):
    """A store that does not answer, or refuses what it is sent."""


class Point(NamedTuple):
    """A value of a metric."""

    name: str
    value: float
    time: int                        # milliseconds since 1970
    step: int


class Model(NamedTuple):
    """A folder of weights."""

    name: str
    kind: str                        # tokenizer or generator
    folder: Path
    digest: str


class Dataset(NamedTuple):
    """What a result was made of that is no model: the images, the codes."""

    name: str
    digest: str
    place: str


@dataclass(frozen=True)
class Tracked:
    """What the store shows of one result: the run of it is known again by its key."""

    key: str
    path: str                        # of the result
    name: str
    started: int                     # milliseconds since 1970
    ended: int | None = None         # None: not finished
    stopped: bool = False            # not finished, and nobody is at work on it
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    points: Iterable[Point] = ()
    files: Mapping[str, Path] = field(default_factory=dict)          # by their place among the run's artifacts
    pictures: Mapping[str, bytes] = field(default_factory=dict)         # which are no files
    model: Model | None = None
    made_from: tuple[str, ...] = ()                                  # digests of the models behind it
    datasets: tuple[Dataset, ...] = ()


def address() -> str:
    """Of the store: MLFLOW_TRACKING_URI, or a file of SQLite in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / DATABASE}"


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


@contextmanager
def _asking(uri: str) -> Iterator[None]:
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


class Store:
    """The runs of one experiment. Every method raises TrackingError."""

    def __init__(self, experiment: str, uri: str | None = None):
        self.uri = uri or address()
        for name, value in ONCE.items():
            os.environ.setdefault(name, value)
        with _asking(self.uri), self._alone():
            from mlflow import MlflowClient
            self.client = MlflowClient(tracking_uri=self.uri)
            self.experiment: Experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment)
        self.runs: dict[str, Run] = {}
        self.refresh()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else on this machine opens the file of SQLite meanwhile: several that make its tables at once fail."""
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)               # its retries are no news
        if not self.uri.startswith("sqlite:///"):
            yield
            return
        with FileLock(f"{self.uri.removeprefix('sqlite:///')}.lock"):
            yield

    def _experiment(self, name: str) -> "Experiment":
        from mlflow.exceptions import MlflowException
        found = self.client.get_experiment_by_name(name)
        if found is None:
            place = None if is_server(self.uri) else (Path(self.uri.removeprefix("sqlite:///")).parent / ARTIFACTS / name)
            try:
                self.client.create_experiment(name, place and place.as_uri())
            except MlflowException:                        # another did meanwhile
                pass
            found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage != "active":
            raise TrackingError(f"{self.uri}: the experiment {name!r} was deleted there; restore it in MLflow's pages, or name "
                                "another with MLFLOW_EXPERIMENT_NAME")
        return found

    def refresh(self) -> None:
        """Read all runs of the experiment, by their keys."""
        self.runs, token = {}, None
        with _asking(self.uri):
            while True:
                page = self.client.search_runs([self.experiment.experiment_id], max_results=500, page_token=token,
                                               order_by=["attributes.start_time ASC"])
                self.runs |= {run.data.tags["key"]: run for run in page if "key" in run.data.tags}
                if not (token := page.token):
                    return

    def metrics(self) -> dict[str, set[str]]:
        """Those that the runs of a stage have, by the tag of it."""
        found: dict[str, set[str]] = {}
        for run in self.runs.values():
            found.setdefault(run.data.tags.get("stage", ""), set()).update(run.data.metrics)
        return found

    def newest(self, path: str) -> str | None:
        """The id of the last run of a result."""
        with _asking(self.uri):
            found = self.client.search_runs([self.experiment.experiment_id], f"tags.path = '{path}'", max_results=1,
                                            order_by=["attributes.start_time DESC"])
        return found[0].info.run_id if found else None

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        with _asking(self.uri):
            for name, value in tags.items():
                if self.experiment.tags.get(name) != value:
                    self.client.set_experiment_tag(self.experiment.experiment_id, name, value)
                    self.experiment.tags[name] = value

    def write(self, one: Tracked) -> None:
        """Make the run of a result what it should be."""
        with _asking(self.uri):
            known = self.runs.get(one.key) or self._adopted(one)
            run = self.client.get_run(known.info.run_id) if known else self._create(one)     # a search finds no models of runs
            self._points(run, one)
            self._params(run, one)
            self._files(run, one)
            if one.model and one.ended:
                self._model(run, one.model, max((point.step for point in one.points), default=0))
            self._lineage(run, one)
            self._tags(run, one)
            self._end(run, one)
            self.runs[one.key] = self.client.get_run(run.info.run_id)

    def _adopted(self, one: Tracked) -> "Run | None":
        """The run that showed how the making of this result went, when not all of its key was known."""
        begins = one.key.rpartition("@")[0]
        key = next((key for key, run in self.runs.items() if run.info.status != "FINISHED" and (
            key == f"{one.path}{GOING_ON}" or key.rpartition("@")[0] == begins)), None)
        if key is None:
            return None
        self.client.set_tag(self.runs[key].info.run_id, "key", one.key)
        return self.runs.pop(key)

    def _create(self, one: Tracked) -> "Run":
        before = [run for run in self.runs.values() if run.data.tags.get("path") == one.path]
        tags = {"key": one.key, "path": one.path} | ({"replaces": before[-1].info.run_id} if before else {})
        if before:
            log.info("%s: was made anew; its run in MLflow replaces %s", one.path, before[-1].info.run_id)
        return self.client.create_run(self.experiment.experiment_id, one.started, tags, one.name)

    def _points(self, run: "Run", one: Tracked) -> None:
        from mlflow.entities import Metric
        sent = {metric.key: metric.step for metric in run.data._metric_objs}
        new = [Metric(point.name, point.value, point.time, point.step) for point in one.points
               if point.step > sent.get(point.name, -1)]
        for start in range(0, len(new), BATCH):
            self.client.log_batch(run.info.run_id, metrics=new[start:start + BATCH])

    def _params(self, run: "Run", one: Tracked) -> None:
        from mlflow.entities import Param
        new = [Param(name, value[:LONGEST]) for name, value in one.params.items() if name not in run.data.params]
        for start in range(0, len(new), 100):
            self.client.log_batch(run.info.run_id, params=new[start:start + 100])

    def _tags(self, run: "Run", one: Tracked) -> None:
        from mlflow.entities import RunTag
        tags = {name: value[:LONGEST] for name, value in one.tags.items()}
        changed = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
        if changed:
            self.client.log_batch(run.info.run_id, tags=changed)

    def _files(self, run: "Run", one: Tracked) -> None:
        """The tag `sent` says of which files the run has which version."""
        contents = {name: path.read_bytes() for name, path in one.files.items()} | dict(one.pictures)
        now = {name: sha256(content).hexdigest()[:12] for name, content in contents.items()}
        sent = dict(word.rsplit("=", 1) for word in run.data.tags.get("sent", "").split("; ") if word)
        new = [name for name in now if sent.get(name) != now[name]]
        with TemporaryDirectory() as scratch:
            for name in new:
                (Path(scratch) / name).write_bytes(contents[name])
            if new:
                self.client.log_artifacts(run.info.run_id, scratch)
                self.client.set_tag(run.info.run_id, "sent", "; ".join(f"{name}={digest}" for name, digest in now.items()))

    def _model(self, run: "Run", model: Model, step: int) -> None:
        from mlflow.entities import LoggedModelOutput
        if run.outputs and run.outputs.model_outputs:
            return
        made = next(self._models(f"source_run_id = '{run.info.run_id}'"), None) or self.client.create_logged_model(
            self.experiment.experiment_id, model.name, run.info.run_id, {"digest": model.digest, "kind": model.kind},
            model_type=model.kind)
        self._weights(made, model.folder)
        self.client.finalize_logged_model(made.model_id, "READY")
        self.client.log_outputs(run.info.run_id, [LoggedModelOutput(made.model_id, step)])

    def _models(self, text: str) -> "Iterator[LoggedModel]":
        yield from self.client.search_logged_models([self.experiment.experiment_id], text)

    def _weights(self, made: "LoggedModel", folder: Path) -> None:
        """Sent to a server; in the clone they become second names of the same files, which take no room."""
        files = [folder / name for name in MODEL_FILES if (folder / name).exists()]
        with TemporaryDirectory() as scratch:
            target = Path(scratch)
            if local := made.artifact_location.startswith("file://"):
                target = Path(made.artifact_location.removeprefix("file://"))
                target.mkdir(parents=True, exist_ok=True)
            for file in files:
                _link(file, target / file.name)
            if not local:
                self.client.log_model_artifacts(made.model_id, scratch)

    def _lineage(self, run: "Run", one: Tracked) -> None:
        from mlflow.entities import Dataset, DatasetInput, LoggedModelInput
        known = {each.model_id for each in (run.inputs.model_inputs if run.inputs else ())}
        known |= {each.dataset.name for each in (run.inputs.dataset_inputs if run.inputs else ())}
        found = {model.model_id for digest in one.made_from for model in self._models(f"tags.digest = '{digest}'")}
        models = [LoggedModelInput(each) for each in sorted(found - known)]
        datasets = [DatasetInput(Dataset(each.name, each.digest, "local", json.dumps({"uri": each.place})))
                    for each in one.datasets if each.name not in known]
        if models or datasets:
            self.client.log_inputs(run.info.run_id, datasets=datasets or None, models=models or None)

    def _end(self, run: "Run", one: Tracked) -> None:
        status = "FINISHED" if one.ended else "KILLED" if one.stopped else "RUNNING"
        if run.info.status == status and run.info.end_time == (one.ended or run.info.end_time):
            return
        if status == "RUNNING":
            self.client.update_run(run.info.run_id, status)
        else:
            self.client.set_terminated(run.info.run_id, status, one.ended)


def pages(uri: str) -> "tuple[FastAPI, Path]":
    """MLflow's own pages of a store, as an application for a web server, and the first page. Raises TrackingError where only
    mlflow-skinny is."""
    for name, value in (ONCE | QUIET).items():
        os.environ.setdefault(name, value)
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


def _link(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(source, target)
    except OSError:                      # another file system
        from shutil import copyfile
        copyfile(source, target)


def model_folder(uri: str) -> Path:
    """The folder of a logged model, 'models:/m-...', brought here from a server. Raises TrackingError."""
    with _asking(store := address()):
        from mlflow.artifacts import download_artifacts
        return Path(download_artifacts(artifact_uri=uri, tracking_uri=store))
