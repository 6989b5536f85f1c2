"""What reports read: results that do not fit, or do not compare, are named with their file and the remedy."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from reporting_fixtures import inputs, run_params, run_sheet, write, write_evaluations

from restok.experiments import ITEMS, Tree
from restok.files import FileError
from restok.metrics.results import ComparisonError
from restok.reporting.cells import read_csv, read_settings
from restok.reporting.inputs import table_of
from restok.reporting.measured import checkpoints, chosen_guidance
from restok.reporting.published import Published
from restok.reporting.run import ReportError, array_rows, arrays
from restok.stages.search import read_guidance


def evaluations(run, params):
    return checkpoints(Tree(run, run_sheet(params, "fig7")), "fig7")


@pytest.fixture(scope="module")
def params():
    return run_params()


def test_a_missing_file_is_named_with_its_remedy(run, params):
    missing = run / "evaluation" / "main" / "late" / "generation.json"
    missing.unlink()
    with pytest.raises(ReportError, match=r"late/generation\.json: missing; .*snakemake .*generation\.json.*restok evaluate"):
        evaluations(run, params)


def test_a_missing_key_is_named_with_its_file(run, params):
    write(run / "tokenizer" / "main" / "middle" / "metrics.json", {"parameters": 1})
    with pytest.raises(ReportError, match=r"metrics\.json: has no 'step'; remove \S+tokenizer/main/middle and make it"):
        evaluations(run, params)


@pytest.mark.parametrize(("part", "changes", "message"), [
    ("features", {"sha256": "another"}, "features sha256 differ, ab and another"),
    ("reference", {"digest": "another"}, "reference digest differ, cd and another"),
    ("samples", {"size": [9, 9]}, r"samples size differ, \[8, 8\] and \[9, 9\]")])
@pytest.mark.parametrize("protocol", ["reconstruction", "generation", "unguided"])
def test_distances_that_were_not_measured_alike_are_not_ranked(run, params, protocol, part, changes, message):
    for other in ("reconstruction", "generation", "unguided") if part == "features" else (protocol,):
        path = run / "evaluation" / "main" / "late" / f"{other}.json"
        found = json.loads(path.read_text())
        write(path, found | {part: found[part] | changes})
    late = "reconstruction" if part == "features" else protocol
    early = "generation" if late == "unguided" else late              # samples with guidance, and without, compare as well
    with pytest.raises(ComparisonError, match=rf"early/{early}\.json and \S+late/{late}\.json do not compare: {message}"):
        evaluations(run, params)


def changed(found, key, value):
    """`found` with another value at a path such as 'features.sha256'; ... takes it away."""
    *parents, last = key.split(".")
    for parent in parents:
        found = found[int(parent) if parent.isdecimal() else parent]
    if value is ...:
        del found[last]
    else:
        found[int(last) if last.isdecimal() else last] = value


FILES = {"generation": "evaluation/main/late/generation", "reconstruction": "evaluation/main/late/reconstruction",
         "tokenizer": "tokenizer/main/late/metrics", "generator": "generator/main/late/metrics"}


@pytest.mark.parametrize(("file", "key", "value", "message"), [
    ("generation", "n", "80", "n: input should be a valid integer, found '80'"),
    ("generation", "n", -5, "n: input should be greater than 0, found -5"),
    ("generation", "n", True, "n: input should be a valid integer, found True"),
    ("generation", "metrics", [1.0], "metrics: .*found \\[1.0\\]"),
    ("generation", "metrics.FD-digits", "19.5", "metrics.FD-digits: input should be a valid number, found '19.5'"),
    ("generation", "metrics.FD-digits", -1.0, "metrics.FD-digits: -1.0 is not within"),
    ("generation", "metrics.FD-digits", 50.0, "metrics.FD-digits: 50.0 is not within 17.55 to 21.45"),
    ("generation", "metrics.FD-digits", None, "metrics.FD-digits: null, and refused does not say why"),
    ("generation", "metrics.FD-digits", ..., "names.distance: 'FD-digits' is not among the metrics"),
    ("generation", "metrics.F1D", 1.0, "intervals.F1D: missing"),
    ("generation", "metrics.precision", 1.5, "metrics.precision: 1.5 is not within"),
    ("generation", "intervals.FD-digits", [21.0, 18.0], "intervals.FD-digits: from 21.0 down to 18.0: upside down"),
    ("generation", "intervals.FD-digits", [18.0], "intervals.FD-digits: list should have at least 2 items"),
    ("generation", "intervals.FD-digits", ..., "intervals.FD-digits: missing"),
    ("generation", "refused", {"FD-digits": "why"}, "metrics.FD-digits: 19.5, and refused says why it was not measured"),
    ("generation", "intervals.precision", [-1.0, 2.0], "metrics.precision: its interval, -1.0 to 2.0, is not within 0 to 1"),
    ("generation", "names", "FID", "names: .*found 'FID'"),
    ("generation", "names.distance", "FID", "names.distance: 'FID' is not among the metrics"),
    ("generation", "features", None, "features: .*found None"),
    ("generation", "features.sha256", 12, "features.sha256: input should be a valid string, found 12"),
    ("generation", "protocol", "generatoin", "protocol: .*found 'generatoin'"),
    ("generation", "warnings", "none", "warnings: .*found 'none'"),
    ("generation", "refused", ["a"], "refused: .*found \\['a'\\]"),
    ("generation", "seed", "one", "seed: .*found 'one'"),
    ("reconstruction", "samples.size", [8], "samples.size: list should have at least 2 items"),
    ("reconstruction", "metrics.codebook", 3.0, "metrics.codebook: .*found 3.0"),
    ("reconstruction", "metrics.codebook.usage", 1.5, "metrics.codebook.usage: .*less than or equal to 1, found 1.5"),
    ("reconstruction", "metrics.codebook.entropy", ..., "has no 'metrics.codebook.entropy'"),
    ("reconstruction", "metrics.codebook.levels", [], "metrics.codebook.levels: .*at least 1 item"),
    ("reconstruction", "metrics.codebook.levels.1.tokens", 0, "metrics.codebook.levels.1.tokens: .*found 0"),
    ("reconstruction", "intervals.codebook.levels", [], "intervals.codebook: not one interval a level"),
    ("reconstruction", "intervals.codebook.levels.0.entropy", [6.0, 7.0],
     "metrics.codebook.levels.0.entropy: 5.0 is not within 6.0 to 7.0"),
    ("tokenizer", "step", "30", "step: .*found '30'"),
    ("tokenizer", "parameters", 0, "parameters: input should be greater than 0, found 0"),
    ("generator", "sampling_steps", 6.5, "sampling_steps: .*found 6.5"),
    ("generator", "parameters", ..., "has no 'parameters'")])
def test_what_does_not_fit_is_named_with_file_and_key_where_it_is_read(run, params, file, key, value, message):
    path = run / f"{FILES[file]}.json"
    found = json.loads(path.read_text())
    changed(found, key, value)
    write(path, found)
    with pytest.raises(ReportError, match=rf"{FILES[file]}\.json: {message}.*; remove \S+/late\S* and make it"):
        evaluations(run, params)


@pytest.mark.parametrize(("text", "message"), [
    ("[]", "expected a JSON object, found list"), ("7", "expected a JSON object, found int"),
    ("", "not valid JSON"), ('{"n": 1, "n": 2}', "not valid JSON .key 'n' is there twice"),
    ('{"n": NaN}', "not valid JSON .NaN is no number"), ('{"n": -Infinity}', "not valid JSON .-Infinity is no number"),
    ('{"n": ' + 5000 * "9" + "}", "not valid JSON"), (100_000 * "[", "not valid JSON .nested too deep"),
    ('{"a": ' + 900 * "[" + 900 * "]" + "}", "not valid JSON .nested too deep|has no"), ("\ufeff{}", "not valid JSON .*BOM"),
    (b"\xff\xfe{}", "not valid JSON .'utf-8' codec")])
def test_what_is_no_json_is_named(run, params, text, message):
    path = run / "evaluation" / "main" / "late" / "generation.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ReportError, match=rf"late/generation\.json: {message}"):
        evaluations(run, params)


def test_what_stages_write_fits_what_reports_read(run, params, tmp_path):
    """The made-up run holds what is read alone; a real one holds more, and a later version's still more."""
    path = run / "evaluation" / "main" / "late" / "generation.json"
    write(path, json.loads(path.read_text()) | {"inputs": {"tokenizer": "ab"}})
    write(run / "tokenizer" / "main" / "late" / "metrics.json", {"step": 30, "parameters": 2 * 10**9, "device": "cuda"})
    assert len(evaluations(run, params)) == 3


@pytest.mark.parametrize(("key", "value", "message"), [
    ("chosen", ..., "has no 'chosen'"), ("chosen", "step", "chosen: .*found 'step'"),
    ("chosen.schedule", "stairs", "chosen.schedule: .*found 'stairs'"), ("chosen.scale", "2", "chosen.scale: .*found '2'"),
    ("chosen.start", 1.5, "chosen.start: .*found 1.5"), ("metric", "FID", "candidates.0.metrics: has no 'FID'"),
    ("candidates", [], "candidates: .*at least 1 item"), ("candidates.0.n", 0, "candidates.0.n: .*found 0"),
    ("candidates.1.metrics.FD-digits", "21", "candidates.1.metrics.FD-digits: .*found '21'"),
    ("candidates.1.intervals.FD-digits", [30, 40], "candidates.1.metrics.FD-digits: 21.0 is not within 30.0 to 40.0"),
    ("finalists", [{}], "has no 'finalists.0"), ("candidates.1.n", 30, "candidates.1.n: 30, but that of the first is 20"),
    ("top_p", 3, "top_p: .*found 3")])
def test_a_search_that_does_not_fit_is_named(run, params, key, value, message):
    path = run / "guidance" / "main" / "late.json"
    found = json.loads(path.read_text())
    changed(found, key, value)
    write(path, found)
    tree = Tree(run, run_sheet(params, "guidance"))
    with pytest.raises(ReportError, match=rf"guidance/main/late\.json: {message}"):
        chosen_guidance(tree, tree.sheet.trials[0], "late")
    if key.startswith("chosen"):
        with pytest.raises(FileError, match=rf"guidance/main/late\.json: {message}"):
            read_guidance(path)


def test_all_results_of_a_checkpoint_are_of_the_same_features(run, params):
    write_evaluations(run, "late", features={"sha256": "another"})
    with pytest.raises(ReportError, match=r"late/reconstruction\.json and \S+late/generation\.json and \S+late/unguided\.json: "
                                           "not measured by the same features; remove all; remove "):
        evaluations(run, params)


def test_a_checkpoint_of_another_schedule_is_refused(run, params):
    write(run / "tokenizer" / "main" / "late" / "metrics.json", {"step": 31, "parameters": 1})
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
        read_settings(path, ("setting",), ("setting",))


COLUMNS = ("item", "row", "value")


@pytest.mark.parametrize(("content", "message"), [
    ("item;row;value\na;b;1\n", "not a table in CSV .';' separates its columns; save it as CSV with commas"),
    ("item\trow\tvalue\na\tb\t1\n", "not a table in CSV .'\\\\t' separates its columns"),
    ("item,row,value\n", "has columns and no row"), ("item,row,value\na,b\n", "line 2: 2 cells for 3 columns"),
    ("item,row,value\na,b,1\nc,d,1,5\n", "line 3: 4 cells for 3 columns"), ("item,row,row\n", "two columns have one name"),
    ("item,row,value\na,b,1\na,b,2\n", "a, b is there twice"),
    ("row,item,value\na,b,1\n", "columns row, item, value; expected item, row, value"),
    ("item,row,value\n" + 200_000 * "a" + ",b,1\n", "line 2: field larger than"),
    ("item,row,value\ncafé,b,1\n".encode("latin-1"), "'utf-8' codec can't decode")])
def test_a_table_of_the_repository_that_does_not_fit_is_named(tmp_path, content, message):
    path = tmp_path / "orders.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReportError, match=rf"orders\.csv: .*{message}"):
        read_settings(path, COLUMNS, COLUMNS[:2])


def test_a_table_that_a_spreadsheet_saved_with_commas_is_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfitem,row,value\r\n"a, ""b""\r\nc",,1e-4\r\n\r\n')
    table = read_settings(tmp_path / "a.csv", COLUMNS, COLUMNS[:2])
    assert table.to_numpy().tolist() == [['a, "b"\nc', "", "1e-4"]]


def test_a_published_setting_that_is_no_value_is_named(tmp_path, params):
    lines = (ROOT / "params/published.csv").read_text()
    (tmp_path / "published.csv").write_text(lines + 'table7,data.flip,flip,"[1, 2",s\n')
    given = replace(inputs(tmp_path, run_sheet(params)), published=Published(tmp_path / "published.csv"))
    with pytest.raises(ReportError, match=r"published\.csv: table7, data\.flip: '\[1, 2' is not valid YAML"):
        table_of(given, ITEMS["table7"])


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
