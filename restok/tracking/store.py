"""The runs of a store: what a result's run has already is left as it is, so everything may be written twice."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock

from restok.tracking import models
from restok.tracking.entries import GOING_ON, Tracked
from restok.tracking.place import ARTIFACTS, TrackingError, address, asking, file_of, settle

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run

BATCH = 1000                                           # metrics that MLflow takes in one call, at the most
LONGEST = 500                                          # characters of a parameter or tag: what is longer is cut
log = logging.getLogger("restok")


class Store:
    """The runs of one experiment. Every method raises TrackingError."""

    def __init__(self, experiment: str, uri: str | None = None):
        self.uri = uri or address()
        settle()
        with asking(self.uri), self._alone():
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
        with FileLock(f"{file}.lock") if (file := file_of(self.uri)) else nullcontext():
            yield

    def _experiment(self, name: str) -> "Experiment":
        from mlflow.exceptions import MlflowException
        found = self.client.get_experiment_by_name(name)
        if found is None:
            file = file_of(self.uri)
            try:
                self.client.create_experiment(name, file and (file.parent / ARTIFACTS / name).as_uri())
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
        with asking(self.uri):
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
        with asking(self.uri):
            found = self.client.search_runs([self.experiment.experiment_id], f"tags.path = '{path}'", max_results=1,
                                            order_by=["attributes.start_time DESC"])
        return found[0].info.run_id if found else None

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        with asking(self.uri):
            for name, value in tags.items():
                if self.experiment.tags.get(name) != value:
                    self.client.set_experiment_tag(self.experiment.experiment_id, name, value)
                    self.experiment.tags[name] = value

    def write(self, one: Tracked) -> None:
        """Make the run of a result what it should be."""
        with asking(self.uri):
            known = self.runs.get(one.key) or self._adopted(one)
            run = self.client.get_run(known.info.run_id) if known else self._create(one)     # a search finds no models of runs
            self._points(run, one)
            self._params(run, one)
            self._files(run, one)
            if one.model and one.ended:
                models.send(self.client, run, one.model, max((point.step for point in one.points), default=0))
            models.send_lineage(self.client, run, one)
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

    def _end(self, run: "Run", one: Tracked) -> None:
        status = "FINISHED" if one.ended else "KILLED" if one.stopped else "RUNNING"
        if run.info.status == status and run.info.end_time == (one.ended or run.info.end_time):
            return
        if status == "RUNNING":
            self.client.update_run(run.info.run_id, status)
        else:
            self.client.set_terminated(run.info.run_id, status, one.ended)
