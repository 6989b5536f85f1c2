"""Tokenizers and generators as logged models of a store: their weights, what was made from them, and the way back."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from restok.tracking.entries import Model, Tracked
from restok.tracking.place import address, asking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

FILES = "config.json", "manifest.json", "metrics.json", "model.safetensors"      # and no state to train on from


def send(client: "MlflowClient", run: "Run", model: Model, step: int) -> None:
    """The weights that a run made, as its logged model."""
    from mlflow.entities import LoggedModelOutput
    if run.outputs and run.outputs.model_outputs:
        return
    made = next(_found(client, run, f"source_run_id = '{run.info.run_id}'"), None) or client.create_logged_model(
        run.info.experiment_id, model.name, run.info.run_id, {"digest": model.digest, "kind": model.kind},
        model_type=model.kind)
    _send_weights(client, made, model.folder)
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(made.model_id, step)])


def send_lineage(client: "MlflowClient", run: "Run", one: Tracked) -> None:
    """The logged models and the data that a run's result was made from."""
    from mlflow.entities import Dataset, DatasetInput, LoggedModelInput
    known = {each.model_id for each in (run.inputs.model_inputs if run.inputs else ())}
    known |= {each.dataset.name for each in (run.inputs.dataset_inputs if run.inputs else ())}
    found = {model.model_id for digest in one.made_from for model in _found(client, run, f"tags.digest = '{digest}'")}
    models = [LoggedModelInput(each) for each in sorted(found - known)]
    datasets = [DatasetInput(Dataset(each.name, each.digest, "local", json.dumps({"uri": each.place})))
                for each in one.datasets if each.name not in known]
    if models or datasets:
        client.log_inputs(run.info.run_id, datasets=datasets or None, models=models or None)


def folder(uri: str) -> Path:
    """The folder of a logged model, 'models:/m-...', brought here from a server. Raises TrackingError."""
    with asking(store := address()):
        from mlflow.artifacts import download_artifacts
        return Path(download_artifacts(artifact_uri=uri, tracking_uri=store))


def _found(client: "MlflowClient", run: "Run", text: str) -> "Iterator[LoggedModel]":
    """Those of the run's experiment for which a condition holds."""
    yield from client.search_logged_models([run.info.experiment_id], text)


def _send_weights(client: "MlflowClient", made: "LoggedModel", folder: Path) -> None:
    """Sent to a server; in the clone they become second names of the same files, which take no room."""
    files = [folder / name for name in FILES if (folder / name).exists()]
    with TemporaryDirectory() as scratch:
        target = Path(scratch)
        if local := made.artifact_location.startswith("file://"):
            target = Path(made.artifact_location.removeprefix("file://"))
            target.mkdir(parents=True, exist_ok=True)
        for file in files:
            _link(file, target / file.name)
        if not local:
            client.log_model_artifacts(made.model_id, scratch)


def _link(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(source, target)
    except OSError:                      # another file system
        from shutil import copyfile
        copyfile(source, target)
