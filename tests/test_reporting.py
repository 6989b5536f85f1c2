"""What reports read: results that do not fit, or do not compare, are named with their file and the remedy."""

import json

import numpy as np
import pytest
from reporting_fixtures import run_params, run_sheet, write, write_evaluations

from restok.experiments import Tree
from restok.metrics.results import ComparisonError
from restok.reporting.cells import read_csv, read_settings
from restok.reporting.measured import checkpoints
from restok.reporting.run import ReportError, array_rows, arrays


def evaluations(run, params):
    return checkpoints(Tree(run, run_sheet(params, "fig7")), "fig7")


@pytest.fixture(scope="module")
def params():
    return run_params()


def test_a_missing_file_is_named_with_its_remedy(run, params):
    missing = run / "evaluation" / "late" / "generation.json"
    missing.unlink()
    with pytest.raises(ReportError, match=r"late/generation\.json: missing; .*snakemake .*generation\.json.*restok evaluate"):
        evaluations(run, params)


def test_a_missing_key_is_named_with_its_file(run, params):
    write(run / "tokenizer" / "middle" / "metrics.json", {"parameters": 1})
    with pytest.raises(ReportError, match=r"metrics\.json: has no 'step'; remove \S+tokenizer/middle and make it"):
        evaluations(run, params)


@pytest.mark.parametrize(("part", "changes", "message"), [
    ("features", {"sha256": "another"}, "features sha256 differ, ab and another"),
    ("reference", {"digest": "another"}, "reference digest differ, cd and another"),
    ("samples", {"size": [9, 9]}, r"samples size differ, \[8, 8\] and \[9, 9\]")])
@pytest.mark.parametrize("protocol", ["reconstruction", "generation"])
def test_distances_that_were_not_measured_alike_are_not_ranked(run, params, protocol, part, changes, message):
    for other in ("reconstruction", "generation") if part == "features" else (protocol,):
        path = run / "evaluation" / "late" / f"{other}.json"
        found = json.loads(path.read_text())
        write(path, found | {part: found[part] | changes})
    first = "reconstruction" if part == "features" else protocol
    with pytest.raises(ComparisonError, match=rf"early/{first}\.json and \S+late/{first}\.json do not compare: {message}"):
        evaluations(run, params)


def test_both_results_of_a_checkpoint_are_of_the_same_features(run, params):
    write_evaluations(run, "late", features={"sha256": "another"})
    with pytest.raises(ReportError, match=r"late/reconstruction\.json and \S+late/generation\.json: not measured by the same"):
        evaluations(run, params)


def test_a_checkpoint_of_another_schedule_is_refused(run, params):
    write(run / "tokenizer" / "late" / "metrics.json", {"step": 31, "parameters": 1})
    with pytest.raises(ReportError, match=r"step 31, but the parameters put late at 30"):
        evaluations(run, params)


def test_a_distance_that_was_not_measured_is_an_error_with_the_reason(run, params):
    write_evaluations(run, "early", refused={"FD-digits": "there are none"})
    with pytest.raises(ReportError, match=r"early/generation\.json: FD-digits was not measured: there are none; mend that"):
        evaluations(run, params)


@pytest.mark.parametrize("content", [b"", b"setting\n\xff\n", b"a\n\"b\n"])
def test_what_is_no_table_is_named_with_its_remedy(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"table\.csv: not a table in CSV .*; remove"):
        read_csv(path)
    with pytest.raises(ReportError, match=r"table\.csv: not a table in CSV .*git checkout"):
        read_settings(path, ("setting",))


def test_what_is_no_npz_is_named_with_its_remedy(tmp_path):
    (tmp_path / "empty.npz").touch()
    with (tmp_path / "bare.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    for name in ("empty", "bare"):
        with pytest.raises(ReportError, match=rf"{name}\.npz: psnr cannot be read .*; remove"):
            arrays(tmp_path / f"{name}.npz", "psnr")


def test_rows_of_an_array_are_read_without_the_rest(tmp_path):
    array = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    for name, save in (("plain", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", arr_0=array)
        rows = array_rows(tmp_path / f"{name}.npz", "arr_0", [4, 1])
        assert rows.keys() == {1, 4} and all((rows[i] == array[i]).all() for i in rows)
