"""What is kept, held against the rules that make it and the stages of DVC that keep it; what is put away."""

import json
import re
import subprocess
import sys
from functools import reduce

import pytest
from conftest import ROOT, dry_run
from typer.testing import CliRunner

from restok.cli import app
from restok.config.load import ConfigError, canonical_json, load_choice, load_params
from restok.config.text import read_yaml
from restok.experiments import Tree, artifacts, load_sheet
from restok.experiments.places import STAGES, depends_on
from restok.files.artifact import PASSING

STAGES_OF_DVC = {name: stage["do"] for name, stage in read_yaml((ROOT / "dvc.yaml").read_text())["stages"].items()}
RESULTS, REPORTS = "results/${item}/", "reports/${item}"


def outs(phase):
    assert all(options == {"persist": True} for out in STAGES_OF_DVC[phase]["outs"] for options in out.values())
    return [path for out in STAGES_OF_DVC[phase]["outs"] for path in out]


def settings(phase):
    """The keys of the parameter file that a stage of DVC tracks; None: all of it."""
    (tracked,) = (entry["params/${item}.yaml"] for entry in STAGES_OF_DVC[phase]["params"] if "params/${item}.yaml" in entry)
    return tracked


def phase_of(path, item):
    """The stage of DVC that keeps a file of a run."""
    below = path.replace(f"results/{item}/", RESULTS).replace(f"reports/{item}/", f"{REPORTS}/")
    found = [phase for phase in STAGES_OF_DVC for out in outs(phase) if f"{below}/".startswith(f"{out}/")]
    assert len(found) <= 1, path
    return found[0] if found else None


def test_each_phase_is_a_stage_of_dvc_that_calls_its_target():
    assert [*STAGES_OF_DVC] == ["rows", *artifacts.PHASES, "reports"]
    for phase in artifacts.PHASES:
        assert outs(phase) == [RESULTS + folder for folder in artifacts.folders(phase)]
        assert sorted(settings(phase)) == sorted(artifacts.settings(phase))
        command = STAGES_OF_DVC[phase]["cmd"]
        first, *more = [command] if isinstance(command, str) else command
        assert first == f"snakemake --cores all {phase}" and all(word.startswith("mkdir -p 'results/${item}/") for word in more)
    assert outs("reports") == [REPORTS] and settings("reports") is None and settings("rows") is None
    assert STAGES_OF_DVC["rows"]["cmd"] == [          # not by Snakemake, which knows nothing of a list that was pulled
        "restok prune --params 'params/${item}.yaml'",
        "restok rows --params 'params/${item}.yaml' --rows ${rows} --out 'results/${item}/rows.json'"]
    assert outs("rows") == [f"{RESULTS}rows.json"]
    folders = [folder for phase in artifacts.PHASES for folder in artifacts.folders(phase)]
    assert len(folders) == len(set(folders))


@pytest.mark.parametrize("run", ["demo", "short", "imagenet256"])
def test_what_rules_read_of_the_parameters_a_stage_of_dvc_tracks(run):
    params = load_params(ROOT / f"params/{run}.yaml")
    for name, stage in STAGES.items():
        for read in json.loads(depends_on(name, params)):
            assert any(f"{read}.".startswith(f"{key}.") for key in settings(stage.phase)), (name, read)


def test_what_rules_write_and_read_is_what_stages_of_dvc_keep_and_depend_on(workflow):
    said = dry_run(workflow, "--config", "run=short", "rows=all", "--", "reports")
    made, kept = set(), set()
    for job in re.split(r"^(?:local)?rule ", said, flags=re.MULTILINE)[1:]:
        files = {kind: [name for line in re.findall(rf"^    {kind}: (.*)$", job, re.MULTILINE) for name in line.split(", ")]
                 for kind in ("input", "output")}
        for output in files["output"]:
            made.add(output)
            phase = phase_of(output, "short")
            assert phase, f"{output}: no stage of DVC keeps it"
            kept |= {phase}
            needs = [dep.replace("${item}", "short") for dep in STAGES_OF_DVC[phase].get("deps", ())]
            for read in files["input"]:
                known = phase_of(read, "short") == phase or any(f"{read}/".startswith(f"{dep}/") for dep in needs)
                assert known, (output, read)
    assert kept == {*artifacts.PHASES, "reports"}
    sheet, params = load_sheet(workflow / "params/short.yaml"), load_params(workflow / "params/short.yaml")
    tree = Tree("results/short", sheet)
    results = {str(path) for path in artifacts.results(tree, params, "all")}
    assert results == {name for name in made if name.startswith("results/")}
    reports = {str(path) for path in artifacts.reports(tree, params, type(tree.root)("reports/short"))}
    assert reports == {name for name in made if name.startswith("reports/")}


def test_the_phases_are_all_that_the_reports_need(workflow):
    def outputs(*targets):
        said = dry_run(workflow, "--", *targets)
        return {name for line in re.findall(r"output: (.*)", said) for name in line.split(", ") if name.startswith("results/")}

    assert outputs(*artifacts.PHASES) == outputs("reports")


def test_locks_and_marks_of_the_workflow_are_not_kept():
    names = [f"results/demo/tokenizer/main/{name}" for name in (".1M.lock", ".1M.part", *(f"1M/{name}" for name in PASSING))]
    command = [sys.executable, "-m", "dvc", "check-ignore", *names, "results/demo/tokenizer/main/1M/model.safetensors"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split() == names


def test_rows_say_what_the_sheet_adds_to_a_phase(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params/demo.yaml").write_text((ROOT / "params/demo.yaml").read_text())
    (tmp_path / "params/experiments.tsv").write_text(
        "id\tbase\toverrides\tfeeds\tparams\ttokenizer\tgenerator\nmain\tmain\t\ttable1\nwarm\tmain\tsampling.temperature=0.5\t"
        "table10 warm\n")
    sheet, params = load_sheet(tmp_path / "params/demo.yaml"), load_params(tmp_path / "params/demo.yaml")
    changes = artifacts.changes(Tree("results/demo", sheet), params, "all")
    labels = ["250k", "500k", "750k", "1M"]
    assert changes["tokenizers"] == {"besides": [], "main": {"checkpoints": labels}, "warm.10086": {"checkpoints": labels}}
    assert changes["evaluation"]["warm.10086"] == {"checkpoints": labels, "sampling.temperature": 0.5}
    assert changes["reports"] == {"main": ["table1"], "warm.10086": ["table10 warm"]}


def described(home, overrides, feeds="table1; fig6"):
    """By phase: what it makes, and what its stage of DVC is told of it."""
    (home / "params/experiments.tsv").write_text(
        f"id\tbase\toverrides\tfeeds\tparams\ttokenizer\tgenerator\nmain\tmain\t\t{feeds}\n")
    sheet, params = (load(home / "params/demo.yaml", overrides) for load in (load_sheet, load_params))
    tree = Tree("results/demo", sheet)
    told, flat = artifacts.changes(tree, params, "main"), json.loads(canonical_json(params, *type(params).model_fields))
    return {phase: (artifacts.of_phase(phase, tree, params, "main"),
                    (told[phase], [reduce(dict.__getitem__, key.split("."), flat) for key in settings(phase)]))
            for phase in artifacts.PHASES}


@pytest.mark.parametrize(("phase", "overrides", "feeds"), [
    ("data", ["evaluation.reference=published.npz"], "table1; fig6"), ("evaluation", [], "table1"),
    ("evaluation", [], "table1; fig6; fig5"),
    ("evaluation", ["guidance_search.scales=[1.5]"], "table1; fig6")])
def test_where_a_phase_makes_other_results_its_stage_of_dvc_knows(tmp_path, phase, overrides, feeds):
    (tmp_path / "params").mkdir()
    (tmp_path / "params/demo.yaml").write_text((ROOT / "params/demo.yaml").read_text())
    (made, told), (otherwise, then) = described(tmp_path, [])[phase], described(tmp_path, overrides, feeds)[phase]
    assert made != otherwise and told != then


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.as_posix())
    return path


def test_what_no_row_makes_any_more_is_put_away_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/demo.yaml").write_text((ROOT / "params/demo.yaml").read_text())
    (tmp_path / "params/experiments.tsv").write_text(
        "id\tbase\toverrides\tfeeds\tparams\ttokenizer\tgenerator\nmain\tmain\t\ttable1; fig7\n")
    tree = Tree("results/demo", load_sheet("params/demo.yaml"))
    kept = [touch(path if path.suffix else path / "model.safetensors")
            for path in artifacts.results(tree, load_params("params/demo.yaml"), "all")]
    kept += [touch(tmp_path / name) for name in (
        "results/demo/tokenizer/main/.1M.lock", "results/demo/tokenizer/mine/1M/model.safetensors", "reports/demo/table1.csv",
        "reports/demo/notes.md", "results/demo/logs/old.10086/encode.1M.log", "results/short/tokenizer/old.1/1M/config.json")]
    gone = [touch(tmp_path / name) for name in (
        "results/demo/tokenizer/old.10086/1M/model.safetensors", "results/demo/tokenizer/main/2M/model.safetensors",
        "results/demo/guidance/main/1M/step_9.0_0.1.json", "results/demo/evaluation/old.10086/1M/generation.json",
        "results/demo/panel/old.10086/1M.npz", "reports/demo/table2.csv", "reports/demo/provenance/table2.json")]
    touch(tmp_path / "results/demo/tokenizer/old.10086/.1M.lock")          # as every folder that was made has one beside it
    done = CliRunner().invoke(app, ["prune", "--params", "params/demo.yaml"])
    assert done.exit_code == 0 and all(path.exists() for path in kept) and not any(path.exists() for path in gone)
    assert not (tmp_path / "results/demo/tokenizer/old.10086").exists()
    assert [*(tmp_path / "results/demo/panel").iterdir()] == []            # DVC keeps it, empty
    (home,) = (tmp_path / "runs/demo/removed").iterdir()
    assert sorted(path.read_text() for path in home.rglob("*.*") if path.is_file()) == sorted(path.as_posix() for path in gone)
    assert CliRunner().invoke(app, ["prune", "--params", "params/demo.yaml"]).exit_code == 0
    assert len([*(tmp_path / "runs/demo/removed").iterdir()]) == 1


@pytest.mark.parametrize(("text", "message"), [
    ("run: demo\nrows: som\n", "run.yaml: rows: input should be 'main' or 'all', found 'som'"),
    ("run: demo\nrow: all\n", "run.yaml: row: unknown key; did you mean 'rows'"), ("run: demo\n", "run.yaml: rows: missing"),
    ("rows: all\n", "run.yaml: run: missing")])
def test_a_choice_that_is_none_is_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_choice()
