"""What was measured, in one file for `dvc metrics`."""

from typing import Any

from restok.experiments import Tree, artifacts
from restok.experiments.trials import Trial
from restok.reporting.inputs import Inputs
from restok.reporting.measured import Checkpoint, measured_at

QUANTITIES = "rfid", "gfid", "gfid_unguided", "is", "entropy"


def summary(inputs: Inputs, rows: str) -> dict[str, Any]:
    """By row of the sheet and checkpoint: both distances, that of samples without guidance where tables show it, the score and
    the codebook's entropy (bits), each with the bounds of its 95 % interval. Raises ReportError where a result is missing."""
    return {trial.name: {label: _values(inputs.tree, trial, label) for label in trial.labels}
            for trial in artifacts.trials(inputs.tree, inputs.params, rows)}


def _values(tree: Tree, trial: Trial, label: str) -> dict[str, Any]:
    measured, found = measured_at(tree, trial, label, tree.unguided(trial, label)), {}
    for quantity in QUANTITIES:
        value, interval = measured.value(quantity)
        if value is not None:
            low, high = interval or (None, None)
            found[_name(measured, quantity)] = {"value": value, "low": low, "high": high}
    return found


def _name(measured: Checkpoint, quantity: str) -> str:
    """'rFID', 'gFID', 'entropy'; of other features than Inception's 'gFD-digits'."""
    name = measured.metric(quantity)
    return {"gfid": f"g{name}", "gfid_unguided": f"g{name} without guidance", "entropy": quantity}.get(quantity, name)
