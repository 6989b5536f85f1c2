"""MLflow as a mirror of what lies on disk: made anew at any time, and nothing twice. A real chain, and real stores."""

import ast
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from spoilt import chain

import restok
from restok.config.load import load_params
from restok.experiments import Tree, load_sheet
from restok.experiments.manifests import artifact_at
from restok.files import noted, read_json, write_json
from restok.mirror import child, sync
from restok.mirror.curves import POINTS, curves, name_of
from restok.mirror.results import Results
from restok.mirror.values import costs, evaluated
from restok.progress import track
from restok.tracking import Store

SKIPPED = "--part", "panel", "table table6", "table table7", "table table8", "table table9", "figure"
LOSSES = "mse", "perceptual", "codebook", "commitment", "vf_encoder", "vf_decoder", "gan", "discriminator"
RATES = [f"{name}{of}" for name in ("learning_rate", "gradient_norm") for of in ("", "_discriminator")]
ROW = {"step": 0, "time": 1.0, **dict.fromkeys((*LOSSES, *RATES), 0.5),
       "codebook_tokens": 9, "codebook_dead": 1, "codebook_use": 0.5, "codebook_entropy": 3.0, "steps_per_second": 1.0,
       "images_per_second": 9.0, "data_seconds": 0.1, "memory_gb": 1.0}
ROW |= {f"codebook_{name}_{level}": 0.5 for level in range(1, 9) for name in ("use", "entropy")}     # the paper's eight levels


@pytest.fixture(scope="module")
def sound(tmp_path_factory, command):
    """A chain of two checkpoints, and a table."""
    return chain.made(tmp_path_factory.mktemp("tracking"), command, lambda words: not any(each in words for each in SKIPPED))


@pytest.fixture(scope="module")
def mirrored(sound, command):
    """The chain's store, made once."""
    with chdir(sound):
        result = command("track-sync", "run")
    assert result.exit_code == 0, result.output
    return sound


@pytest.fixture
def home(mirrored, tmp_path, monkeypatch):
    """A copy of both, to change."""
    store = shutil.ignore_patterns("mlflow.db", "mlartifacts")
    shutil.copytree(mirrored, tmp_path / "home", copy_function=os.link, ignore=store)
    shutil.copy(mirrored / "mlflow.db", tmp_path / "home")
    shutil.copytree(mirrored / "mlartifacts", tmp_path / "home/mlartifacts")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


def by_name(home: Path) -> dict:
    store = Store("run", f"sqlite:///{home / 'mlflow.db'}")
    return {run.info.run_name: store.client.get_run(run.info.run_id) for run in store.runs.values()}


def dump(home: Path) -> dict[str, list]:
    """What the store holds, but for what MLflow makes up itself."""
    columns = {"metrics": "key, value, timestamp, step", "params": "key, value", "tags": "key, value", "logged_models": "name",
               "runs": "name, status, start_time, end_time", "inputs": "source_type, destination_type"}
    with sqlite3.connect(home / "mlflow.db") as base:
        return {table: sorted(base.execute(f"select {names} from {table}"), key=repr) for table, names in columns.items()}


# What is sent.

def test_there_is_a_run_for_each_result_and_they_sort_by_row_checkpoint_and_stage(home):
    stages = "tokenizer", "codes", "generator", "guidance", "evaluation"
    expected = [f"00.{checkpoint}.{number} main {label} {stage}" for checkpoint, label in ((1, "750k"), (2, "1M"))
                for number, stage in enumerate(stages, 1)]
    assert sorted(by_name(home)) == [*expected, "99 reports"]
    assert {run.info.status for run in by_name(home).values()} == {"FINISHED"}


def test_a_curve_is_the_log(home):
    run = by_name(home)["00.1.1 main 750k tokenizer"]
    rows = [json.loads(line) for line in (home / "results/run/tokenizer/main/750k/log.jsonl").read_text().splitlines()]
    client = Store("run", f"sqlite:///{home / 'mlflow.db'}").client
    for key, name in (("mse", "loss/mse"), ("codebook_entropy_2", "codebook by level/entropy 2"),
                      ("images_per_second", "speed/images_per_second")):
        found = [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, name)]
        assert found == [(row["step"], row[key], round(1000 * row["time"])) for row in rows]
    assert run.data.metrics["progress"] == 1.0


def test_an_evaluation_has_its_values_with_their_intervals_under_the_names_they_deserve(home):
    metrics = by_name(home)["00.2.5 main 1M evaluation"].data.metrics
    generation, reconstruction, unguided = (read_json(home / f"results/run/evaluation/main/1M/{name}.json")
                                            for name in ("generation", "reconstruction", "unguided"))
    assert metrics["eval/gFD-digits"] == generation["metrics"]["FD-digits"]
    assert [metrics[f"interval/gFD-digits {end}"] for end in ("low", "high")] == generation["intervals"]["FD-digits"]
    assert metrics["eval/gFD-digits without guidance"] == unguided["metrics"]["FD-digits"]
    assert metrics["unguided/recall"] == unguided["metrics"]["recall"]
    assert metrics["eval/rFD-digits"] == reconstruction["metrics"]["rFD-digits"]
    assert metrics["eval/codebook entropy"] == reconstruction["metrics"]["codebook"]["entropy"]
    assert not any("FID" in name for name in metrics)               # which only Inception's features make
    made = [artifact_at(home / f"results/run/tokenizer/main/{label}").facts["made"][0] for label in ("750k", "1M")]
    assert metrics["cost/tokenizer hours"] == pytest.approx(sum(one["seconds"] for one in made) / 3600)
    assert metrics["cost/generator memory GB"] > 0


def test_settings_and_tags_are_those_of_the_manifests_behind_a_result(home):
    run = by_name(home)["00.2.5 main 1M evaluation"]
    manifest = read_json(home / "results/run/tokenizer/main/1M/manifest.json")
    assert run.data.params["tokenizer.width"] == str(manifest["settings"]["tokenizer"]["width"])
    assert {"generator.width", "sampling.temperature", "objective.gan", "seed"} <= run.data.params.keys()
    tags = run.data.tags
    assert (tags["stage"], tags["row"], tags["checkpoint"], tags["path"]) == (
        "evaluation", "main", "1M", "results/run/evaluation/main/1M")
    assert tags["fig7"] == "main" and "table1 main" in tags["feeds"] and tags["gpus"] == "none" and tags["host"]
    assert tags["commit"].startswith(manifest["made"][0]["commit"][:7])
    assert tags["data"] == artifact_at(home / "results/run/data").digest[:12]


def test_models_lead_to_what_was_made_of_them_and_load_in_one_line(home):
    runs = by_name(home)
    model = {name: runs[f"00.1.{number} main 750k {name}"].outputs.model_outputs[0].model_id
             for number, name in ((1, "tokenizer"), (3, "generator"))}
    inputs = {name: {each.model_id for each in run.inputs.model_inputs} for name, run in runs.items()}
    assert inputs["00.1.2 main 750k codes"] == {model["tokenizer"]}
    assert inputs["00.1.3 main 750k generator"] == {model["tokenizer"]}
    assert inputs["00.1.5 main 750k evaluation"] == set(model.values())
    assert "codes" in [each.dataset.name for each in runs["00.1.3 main 750k generator"].inputs.dataset_inputs]
    for name, load in (("tokenizer", restok.load_tokenizer), ("generator", restok.load_generator)):
        loaded, own = load(f"models:/{model[name]}"), load(f"results/run/{name}/main/750k")
        assert all(torch.equal(one, other) for one, other in zip(loaded.state_dict().values(), own.state_dict().values(),
                                                                 strict=True))


def test_a_model_in_the_clone_takes_no_room(mirrored):
    weights = list((mirrored / "mlartifacts").rglob("model.safetensors"))
    assert len(weights) == 4 and all(file.stat().st_nlink > 1 for file in weights)
    assert not list((mirrored / "mlartifacts").rglob("state.pt"))


def test_tables_the_parameter_file_and_samples_are_artifacts(home):
    store, runs = Store("run", f"sqlite:///{home / 'mlflow.db'}"), by_name(home)
    def names(run):
        return {file.path for file in store.client.list_artifacts(runs[run].info.run_id)}
    assert names("99 reports") >= {"table1.csv", "parameters.yaml"}
    assert names("00.2.5 main 1M evaluation") == {"parameters.yaml", "samples.png"}


# Nothing twice, nothing lost.

def test_sent_again_nothing_changes(home, command):
    before = dump(home)
    assert command("track-sync", "run").exit_code == 0
    assert dump(home) == before


def test_a_store_that_was_lost_is_made_anew(home, command):
    before = dump(home)
    (home / "mlflow.db").unlink()
    shutil.rmtree(home / "mlartifacts")
    assert command("track-sync", "run").exit_code == 0
    assert dump(home) == before


def unfinished(home: Path, rows: int) -> tuple[Path, list[str]]:
    """The generator's training as it was after some rows: its result and all that was made of it are gone."""
    out = home / "results/run/generator/main/1M"
    manifest, lines = read_json(out / "manifest.json"), (out / "log.jsonl").read_text().splitlines()
    shutil.copytree(out, home / "aside")
    shutil.rmtree(out)
    shutil.rmtree(home / "results/run/evaluation/main/1M")
    (home / "results/run/guidance/main/1M.json").unlink()
    folder = home / "runs/run/generator/main/1M/0123456789ab"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = {key: manifest[key] for key in ("format", "kind", "settings", "inputs", "paths", "made")}
    write_json(folder / "origin.json", kept | {"out": out.as_posix()})
    write_json(folder / "calls.json", manifest["made"])
    (folder / "log.jsonl").write_text("".join(line + "\n" for line in lines[:rows]))
    return folder / "log.jsonl", lines


@pytest.fixture
def bare(home):
    """Without a store."""
    (home / "mlflow.db").unlink()
    shutil.rmtree(home / "mlartifacts")
    return home


def steps(home, name, metric="loss/cross_entropy"):
    run = by_name(home)[name]
    return run, [point.step for point in
                 Store("run", f"sqlite:///{home / 'mlflow.db'}").client.get_metric_history(run.info.run_id, metric)]


def test_a_training_that_goes_on_continues_its_run(bare, command):
    log, lines = unfinished(bare, rows=3)
    all_steps = [json.loads(line)["step"] for line in lines]
    assert len(lines) > 3
    assert command("track-sync", "run").exit_code == 0
    first, sent = steps(bare, "00.2.3 main 1M generator")
    assert (first.info.status, sent) == ("RUNNING", all_steps[:3]) and 0 < first.data.metrics["progress"] < 1
    assert first.outputs is None or not first.outputs.model_outputs
    write_json(log.with_name("calls.json"), [one | {"started": "2031-01-01T00:00:00Z"} for one in read_json(
        log.with_name("calls.json"))])                    # what came before is not known to this call
    log.write_text("".join(line + "\n" for line in lines[:2]) + lines[2][:20])     # resumed: a row again, and half written
    assert command("track-sync", "run").exit_code == 0
    assert steps(bare, "00.2.3 main 1M generator")[1] == all_steps[:3]
    shutil.copytree(bare / "aside", bare / "results/run/generator/main/1M")
    shutil.rmtree(log.parent)
    assert command("track-sync", "run").exit_code == 0
    run, sent = steps(bare, "00.2.3 main 1M generator")
    assert (run.info.run_id, run.info.status, sent) == (first.info.run_id, "FINISHED", all_steps)
    assert run.outputs.model_outputs


def test_a_training_that_ends_while_it_is_looked_at_is_no_fault(bare):
    log, _ = unfinished(bare, rows=3)
    sheet = load_sheet("params/run.yaml")
    results = Results(Tree("results/run", sheet), load_params("params/run.yaml"), Path("runs/run"), Path("reports/run"),
                      Path("params/run.yaml"))
    seen = next(source for source in results.sources() if source.path == Path("results/run/generator/main/1M"))
    assert seen.read().ended is None
    shutil.rmtree(log.parent)
    assert seen.read() is None


def test_work_that_leaves_no_log_shows_how_far_it_is_and_becomes_the_run_of_its_result(bare, command, monkeypatch):
    """As does a measurement, of which only the note in runs/ is there before its end."""
    place, aside = bare / "results/run/evaluation/main/1M", bare / "aside"
    shutil.move(place, aside)
    monkeypatch.setattr(noted, "EVERY", 0.05)
    note = noted.beside(bare / "runs/run/evaluation/main/1M/generation.safetensors")
    with noted.noted_in(note):
        for _ in track(range(1), "measuring samples", 200, "images", before=50):
            while not note.exists():
                time.sleep(0.05)
            assert command("track-sync", "run").exit_code == 0
        first = by_name(bare)["00.2.5 main 1M evaluation"]
        assert (first.info.status, first.data.tags["progress"]) == ("RUNNING", "25 %")
    shutil.move(aside, place)
    assert command("track-sync", "run").exit_code == 0
    run = by_name(bare)["00.2.5 main 1M evaluation"]
    assert (run.info.run_id, run.info.status, run.data.tags["progress"]) == (first.info.run_id, "FINISHED", "")
    assert "replaces" not in run.data.tags and run.data.metrics["eval/gFD-digits"] > 0


def test_what_was_made_anew_starts_a_run_that_says_what_it_replaces(home, command):
    before = by_name(home)["00.2.3 main 1M generator"]
    manifest = read_json(path := home / "results/run/generator/main/1M/manifest.json")
    manifest["settings"]["generator_training"]["batch_size"] = 7
    path.unlink()
    write_json(path, manifest)
    assert command("track-sync", "run").exit_code == 0
    runs = [run for run in Store("run", f"sqlite:///{home / 'mlflow.db'}").runs.values()
            if run.data.tags["path"] == "results/run/generator/main/1M"]
    new = next(run for run in runs if run.info.run_id != before.info.run_id)
    assert len(runs) == 2 and new.data.tags["replaces"] == before.info.run_id
    assert new.data.params["generator_training.batch_size"] == "7"


def test_what_cannot_be_read_is_named_and_the_rest_is_sent(bare, command, caplog):
    (bare / "results/run/codes/main/750k/manifest.json").unlink()
    (bare / "results/run/codes/main/750k/manifest.json").write_text("{")
    assert command("track-sync", "run").exit_code == 0
    assert "results/run/codes/main/750k: not sent to MLflow" in caplog.text
    assert len(by_name(bare)) == 10


# What the pages bear.

def test_a_long_log_becomes_curves_that_the_pages_bear(tmp_path):
    log, steps = tmp_path / "log.jsonl", range(1_000_000)
    log.write_text("".join(json.dumps(ROW | {"step": step}) + "\n" for step in range(100, 1_000_001, 100)))
    found = list(curves(log, steps, 0))
    names = {point.name for point in found}
    assert len(names) <= 30 and len(found) <= (POINTS + 1) * len(names)
    assert max(point.step for point in found) == 1_000_000
    part = tmp_path / "part.jsonl"
    part.write_text("".join(log.read_text().splitlines(keepends=True)[:3333]))
    assert list(curves(part, steps, 0)) == [point for point in found if point.step <= 333_300]      # the same, seen on the way


@pytest.mark.parametrize(("key", "name"), [
    ("mse", "loss/mse"), ("codebook", "loss/codebook"), ("codebook_use", "codebook/use"), ("step", None),
    ("codebook_use_3", None), ("codebook_entropy_3", "codebook by level/entropy 3"),
    ("learning_rate_discriminator", "optimizer/learning_rate_discriminator"), ("memory_gb", "speed/memory_gb")])
def test_names_are_grouped(key, name):
    assert name_of(key) == name


def test_what_was_refused_is_no_value():
    record = {"names": {"distance": "FID", "score": "IS"}, "n": 5, "metrics": {"FID": 3.0, "IS": None, "recall": 0.5},
              "intervals": {"FID": [2.0, 4.0], "IS": None, "recall": None}}
    assert dict(evaluated(None, record, None)) == {"eval/gFID": 3.0, "interval/gFID low": 2.0, "interval/gFID high": 4.0,
                                             "generation/recall": 0.5, "generation/images": 5}


def test_cost_is_of_all_processes_and_calls_and_unknown_where_one_is():
    one = {"seconds": 3600.0, "processes": 8, "memory_gb": 2.0, "gpu_memory_gb": 70.0}
    both = [one, one | {"seconds": 1800.0, "gpu_memory_gb": 71.0}]
    assert dict(costs({"tokenizer": both})) == {"cost/tokenizer hours": 12.0, "cost/tokenizer memory GB": 2.0,
                                                "cost/tokenizer GPU memory GB": 71.0}
    assert "cost/tokenizer hours" not in dict(costs({"tokenizer": [one, one | {"seconds": None}]}))


# One mirror at a time.

def test_a_second_mirror_leaves_the_work_to_the_first(home, command):
    with sync.Mirror("run").held():
        result = command("track-sync", "run")
        assert result.exit_code == 1 and "another mirror is at work" in result.stderr
    assert command("track-sync", "run").exit_code == 0


def test_a_run_without_a_parameter_file_is_refused(home, command):
    result = command("track-sync", "other")
    assert result.exit_code == 1 and "params/other.yaml: not here" in result.stderr


def test_a_mirror_ends_with_the_process_that_started_it(bare, monkeypatch):
    """And has sent by then what lies there."""
    monkeypatch.delenv(child.SWITCH)
    process = child.start("run")
    process.stdin.close()
    assert process.wait(600) == 0, (bare / "runs/run/tracking/mirror.log").read_text()
    assert len(by_name(bare)) == 11


def test_none_is_started_for_what_lies_elsewhere_or_where_it_is_turned_off(home, monkeypatch, tmp_path):
    def refuse(*runs):
        assert not runs
    monkeypatch.setenv(child.SWITCH, child.OFF)
    assert child.start("run") is None
    monkeypatch.delenv(child.SWITCH)
    monkeypatch.setattr(child, "start", refuse)
    for out in (tmp_path / "out", Path("out"), Path("results/nothing/generator"), Path("results/run")):
        with child.beside(out):
            pass
    with pytest.raises(AssertionError), child.beside(Path("results/run/generator/main/1M")):
        pass


# Who knows MLflow.

def test_only_one_part_imports_mlflow():
    for path in (ROOT / "restok").rglob("*.py"):
        names = {name.name.partition(".")[0] for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
                 for name in node.names}
        names |= {node.module.partition(".")[0] for node in ast.walk(ast.parse(path.read_text()))
                  if isinstance(node, ast.ImportFrom) and node.module}
        assert "mlflow" not in names or path.parent == ROOT / "restok/tracking", path


SKINNY = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("flask", "flask_cors", "docker", "graphene", "gunicorn", "huey", "skops", "waitress"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def with_skinny(code: str) -> subprocess.CompletedProcess:
    """Python code where mlflow-skinny is: what the full package needs beside it is missing."""
    return subprocess.run([sys.executable, "-c", SKINNY + code], capture_output=True, text=True)


def test_what_serves_the_pages_alone_is_not_needed_to_send(bare):
    done = with_skinny("from restok.mirror.sync import sync; print(list(sync(['run'])))")
    assert done.stdout.strip() == "[('run', 11)]", done.stderr


def test_without_what_serves_the_pages_the_user_is_told_what_to_install(home):
    done = with_skinny("from restok.cli import app; app(['ui', 'run', '--port', '0'])")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"MLflow's pages are not installed \(.*flask.*\): .*pip install 'restok\[ui\]'", done.stderr), done.stderr


def test_training_does_not_load_mlflow():
    code = "import sys, restok.cli, restok.training.tokenizer, restok.mirror.child; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
