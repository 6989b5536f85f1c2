"""How far long work is: noted in a file while it goes on, and told apart afterwards when it was killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

from restok.experiments import telling
from restok.experiments.telling import Telling
from restok.experiments.underway import Place, running
from restok.files import FileError, noted, owner
from restok.files.noted import beside, noted_in
from restok.files.run import RunFolder
from restok.progress import track
from restok.stages import measure


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(noted, "EVERY", 0.02)


def until(path: Path, holds=lambda note: True) -> dict:
    """The note at a path, once it says something."""
    for _ in range(1000):
        if path.exists() and holds(note := json.loads(path.read_text())):
            return note
        time.sleep(0.01)
    raise AssertionError(f"{path}: never said so")


def note(path: Path, **changes) -> None:
    """As this process leaves it."""
    facts = {"description": "tokenizer 250k", "unit": "steps", "done": 63, "total": 100, "rate": 2.0, "began": 1000.0,
             "updated": time.time(), "error": None, "process": owner.this_process()}
    process = facts["process"] | changes.pop("process", {})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts | changes | {"process": process}))


def test_a_loop_is_noted_while_it_goes_on_and_forgotten_when_it_is_done(tmp_path, often):
    path = tmp_path / "runs/demo/reference/validation.progress.json"
    with noted_in(path):
        for step in track(range(6, 10), "measuring", 10, "images", before=6):
            if step == 8:
                said = until(path, lambda note: note["done"] == 8)
                (found,) = running(tmp_path / "runs/demo")
    assert (said["description"], said["unit"], said["total"], said["error"]) == ("measuring", "images", 10, None)
    assert (found.place, found.share, found.stopped) == (Place("reference", which="validation"), 0.8, None)
    assert found.pid == os.getpid()
    assert found.rate > 0 and str(found).startswith("80 %, 0:00:") and str(found).endswith(" left")
    assert running(tmp_path / "runs/demo") == [] and list(path.parent.iterdir()) == []


def test_what_earlier_calls_did_counts_as_done_but_not_for_the_rate(caplog):
    with caplog.at_level("INFO", "restok"):
        for _ in track(range(2), "tokenizer 500k", 100, "steps", before=50, every=0):
            time.sleep(0.05)
    assert "tokenizer 500k: 51/100 (51%)" in caplog.text
    rates = [float(line.partition("), ")[2].partition(" steps/s")[0]) for line in caplog.messages]
    assert 0 < max(rates) <= 20


def test_an_item_counts_as_its_size(caplog):
    with caplog.at_level("INFO", "restok"):
        assert list(track(["abc", "d"], "reading", 4, "images", size=len)) == ["abc", "d"]
    assert "reading: 4/4 (100%)" in caplog.text and "images/s" in caplog.text


def test_the_outermost_loop_of_the_block_is_noted_and_after_it_the_last(tmp_path, often):
    path = tmp_path / "progress.json"
    for _ in track(range(1), "around the block", 1):
        with noted_in(path):
            for _ in track(range(2), "outer", 2):
                for _ in track(range(5), "inner", 5):
                    said = until(path)
            assert said["description"] == "outer"
            after = until(path, lambda note: note["done"] == 2)
    assert (after["description"], after["total"]) == ("outer", 2)


def test_without_a_loop_nothing_is_written(tmp_path, often):
    with noted_in(tmp_path / "a" / "progress.json"), noted_in(None):
        time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["a file in the way", "a folder in the way", "/proc/none/progress.json"])
def test_a_note_that_cannot_be_written_is_no_error_of_the_work(place, tmp_path, often):
    path = Path(place) if place.startswith("/") else tmp_path / "runs" / "progress.json"
    if place == "a file in the way":
        (tmp_path / "runs").touch()
    if place == "a folder in the way":
        (path / "full").mkdir(parents=True)
    with noted_in(path):
        assert sum(1 for _ in track(range(10), "steps", 10) if not time.sleep(0.01)) == 10
    with pytest.raises(ZeroDivisionError), noted_in(path):
        list(track((1 / (2 - i) for i in range(3)), "steps", 3))


def test_a_full_disk_is_no_error_of_the_work(tmp_path, often, monkeypatch):
    def full(*given, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with noted_in(tmp_path / "progress.json"):
        assert sum(1 for _ in track(range(10), "steps", 10) if not time.sleep(0.01)) == 10
    assert list(tmp_path.iterdir()) == []


def test_what_failed_is_noted_with_its_error(tmp_path, often):
    path = tmp_path / "demo/evaluation/main/1M/generation.progress.json"
    with pytest.raises(FileError), noted_in(path):
        for step in track(range(4), "measuring samples", 4):
            if step == 2:
                until(path)
                raise FileError("full")
    (found,) = running(tmp_path / "demo")
    assert (found.place, found.stopped, found.share) == (Place("generation", "main", "1M"), "FileError", 0.5)
    assert str(found) == "stopped at 50 % (FileError)"


def test_a_run_folder_keeps_its_note_and_forgets_those_of_other_settings_when_it_is_done(tmp_path, often):
    root = tmp_path / "demo/tokenizer/main/250k"
    note(root / ("0" * 12) / "progress.json", process={"pid": 2**22 + 1})
    with RunFolder(root, "f" * 64) as kept:
        for _ in track(range(1), "tokenizer 250k", 1):
            until(kept.folder / "progress.json")
        (found,) = running(tmp_path / "demo")
        assert (found.place, found.identity) == (Place("tokenizer", "main", "250k"), "f" * 12)
        kept.clear()
    assert running(tmp_path / "demo") == [] and not list(root.rglob("*progress.json"))


KILLED = """
import os, sys, time
from pathlib import Path
from restok.files import noted
from restok.files.run import RunFolder
from restok.progress import track
from restok.stages import measure
noted.EVERY = 0.05
with RunFolder(Path(sys.argv[1]), "a" * 64):
    for step in track(range(1000), "tokenizer 250k", 1000, "steps"):
        time.sleep(0.01)
"""


def test_what_was_killed_is_told_apart_at_once(tmp_path):
    root = tmp_path / "demo/tokenizer/main/250k"
    process = subprocess.Popen([sys.executable, "-c", KILLED, root], cwd=ROOT)
    until(root / ("a" * 12) / "progress.json", lambda note: note["done"] > 2)
    (found,) = running(tmp_path / "demo")
    assert found.stopped is None and found.pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    (found,) = running(tmp_path / "demo")
    assert found.stopped == "killed" and str(found).startswith("stopped at ")


@pytest.mark.parametrize(("changes", "stopped"), [
    ({}, None), ({"updated": time.time() - 10 * owner.DEAD}, "no sign of life"), ({"error": "Interrupted"}, "Interrupted")])
def test_work_elsewhere_lives_while_its_note_is_written_again_and_again(changes, stopped, tmp_path):
    process = {"system": "elsewhere", "host": "node7", "job": "71"}
    note(tmp_path / "demo/generator/main/1M/abc/progress.json", process=process, **changes)
    (found,) = running(tmp_path / "demo")
    assert (found.stopped, found.host, found.job) == (stopped, "node7", "71")


@pytest.mark.parametrize(("path", "place"), {
    "tokenizer/main/250k/abc/progress.json": Place("tokenizer", "main", "250k"),
    "codes/x.10086/250k.part0of4/abc/progress.json": Place("codes", "x.10086", "250k", "1 of 4"),
    "data/abc/progress.json": Place("data"),
    "parts/data/1-of-4.progress.json": Place("data", which="1 of 4"),
    "reference/validation.progress.json": Place("reference", which="validation"),
    "evaluation/main/1M/generation.part1of4.progress.json": Place("generation", "main", "1M", "2 of 4"),
    "guidance/main/1M/linear_2.0_0.0.progress.json": Place("candidate", "main", "1M", "linear_2.0_0.0"),
    "guidance/main/1M/finalists/2.progress.json": Place("finalist", "main", "1M", "2"),
}.items())
def test_the_place_of_a_note_says_whose_work_it_is(path, place, tmp_path):
    note(tmp_path / "demo" / path)
    (found,) = running(tmp_path / "demo")
    assert (found.run, found.place) == ("demo", place)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"done": 1}', '{"error": NaN}'])
def test_what_is_no_note_is_passed_over(text, tmp_path):
    note(tmp_path / "demo/data/abc/progress.json")
    for place in ("demo/classifier/abc/progress.json", "demo/elsewhere/progress.json"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(text)
    note(tmp_path / "demo/tokenizer/main/250k/abc/finished/progress.json")
    (tmp_path / "demo/tokenizer/main/500k/abc/progress.json").mkdir(parents=True)
    assert [found.place for found in running(tmp_path / "demo")] == [Place("data")]


def test_of_several_settings_the_last_is_shown_and_what_is_at_work_first(tmp_path):
    note(tmp_path / "demo/tokenizer/main/250k/old/progress.json", updated=1.0)
    note(tmp_path / "demo/tokenizer/main/250k/new/progress.json", updated=2.0, error="LossError")
    note(tmp_path / "demo/generator/main/250k/abc/progress.json")
    assert [(found.place.stage, found.identity) for found in running(tmp_path / "demo")] == [
        ("generator", "abc"), ("tokenizer", "new")]
    assert running(tmp_path / "none") == []


def test_a_measurement_has_its_note_beside_its_sums():
    assert beside(Path("runs/demo/guidance/main/1M/step_2.0_0.25.safetensors")).name == "step_2.0_0.25.progress.json"


# The verb


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder in which a tokenizer is trained on another machine, and a generator was killed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    elsewhere = {"system": "elsewhere", "host": "node7", "job": "71"}
    note(tmp_path / "runs/demo/tokenizer/alignment_encoder.10086/150k/abc/progress.json", process=elsewhere)
    note(tmp_path / "runs/demo/generator/main/1M/abc/progress.json", process={"pid": 2**22 + 1}, done=31)
    (tmp_path / "runs/slurm").mkdir()
    return tmp_path


def test_the_verb_shows_what_is_at_work_and_what_stopped(command, here):
    shown = command("progress").stdout
    lines = shown.splitlines()
    assert lines[0].strip() == "demo" and lines[1].split() == ["work", "done", "left", "rate", "since", "where"]
    work = " ".join(line for line in lines[2:] if "main" not in line)
    assert all(word in work for word in ("alignment_encoder.10086", "150k", "63 %", "0:00:18", "2 steps/s", "node7, job 71"))
    assert "main 1M generator" in shown and "31 %" in shown and "killed" in shown
    assert "goes on from there by the command that began it" in shown
    assert max(map(len, lines)) <= 200 and command("progress", "demo").stdout == shown


def test_the_verb_says_where_nothing_goes_on_and_knows_no_run_that_is_not_there(command, here):
    for path in here.rglob("progress.json"):
        path.unlink()
    assert command("progress").stdout.strip() == "Nothing long goes on in runs/demo, or stopped unfinished."
    strange = command("progress", "dmeo")
    assert strange.exit_code == 1 and "Runs that have worked here: demo" in strange.stderr


def test_followed_it_is_shown_again_until_the_user_stops_it(here):
    command = "from restok.cli import app, progress; progress.IN_LOG = 0.05; app(['progress', '--follow'])"
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})
    seen = [line for line, _ in zip(process.stdout, range(20), strict=False) if line.startswith("work ")]
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert len(seen) > 1 and process.returncode == 0


def test_the_verb_reads_files_alone(here):
    code = ("import sys; from restok.cli import app; app(['progress'], standalone_mode=False);"
            "sys.exit(' '.join({'torch', 'pandas', 'matplotlib', 'mlflow'} & set(sys.modules)) or 0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What the terminal of the workflow says


class Workflow:
    is_main_process, dryrun, output_settings = True, False, SimpleNamespace(quiet=None)


def test_the_workflow_tells_of_a_long_job_after_a_tenth_of_its_time(tmp_path):
    said, began = [], 1_000_000.0
    telling = Telling(Workflow(), SimpleNamespace(info=said.append), tmp_path)

    def at(minutes: float, done: int) -> int:
        note(tmp_path / "demo/tokenizer/main/250k/abc/progress.json", began=began, done=done, rate=100 / 12000)
        telling.tell(began + 60 * minutes)
        return len(said)

    assert [at(0.5, 0), at(10, 5), at(19, 9), at(21, 10), at(30, 15), at(37, 18)] == [0, 0, 1, 1, 1, 2]      # of 200 minutes
    assert said[0].endswith("  demo main 250k tokenizer: 9 %, 3:02:00 left, 0.00833 steps/s")
    note(tmp_path / "demo/tokenizer/main/250k/abc/progress.json", began=began, process={"pid": 2**22 + 1})
    telling.tell(began + 6000)
    assert len(said) == 2                                                # what stopped, Snakemake says


@pytest.mark.parametrize(("minutes", "pause"), [(2, 60), (60, 360), (6000, 900)])
def test_of_short_jobs_it_tells_once_a_minute_at_most_and_of_long_ones_every_quarter_of_an_hour(minutes, pause, tmp_path):
    note(tmp_path / "demo/data/abc/progress.json", began=0.0, done=50, total=100, rate=100 / (60 * minutes))
    (found,) = running(tmp_path / "demo")
    assert telling._pause(found, now=30 * minutes) == pytest.approx(pause)


@pytest.mark.parametrize("changed", [{"dryrun": True}, {"is_main_process": False},
                                     {"output_settings": SimpleNamespace(quiet=[SimpleNamespace(name="PROGRESS")])}])
def test_no_dry_run_tells_of_jobs_nor_a_quiet_one_nor_a_job_itself(changed):
    workflow = type("Changed", (Workflow,), changed)()
    handler = Telling(workflow, SimpleNamespace(info=print))
    handler.emit(SimpleNamespace(event="run_info"))
    assert handler.thread is None


def test_a_folder_that_cannot_be_read_stops_no_workflow(monkeypatch):
    said, looked = [], threading.Event()

    def refused(pattern: str):
        raise PermissionError(13, "Permission denied", "runs")

    handler = Telling(Workflow(), SimpleNamespace(debug=lambda text: (said.append(text), looked.set())),
                      SimpleNamespace(glob=refused))
    monkeypatch.setattr(telling, "LOOK", 0.01)
    handler.emit(SimpleNamespace(event="run_info"))
    assert looked.wait(10) and handler.thread.is_alive() and said[0].startswith("progress: PermissionError: ")


@pytest.mark.parametrize("first", [True, False])
def test_of_several_processes_that_measure_the_first_alone_notes(first, tmp_path, often, monkeypatch):
    monkeypatch.setattr(measure, "is_first", lambda: first)
    path, seen = tmp_path / "generation.progress.json", False
    with measure._noted(tmp_path / "generation.safetensors"):
        for _ in track(range(20), "measuring samples", 20):
            time.sleep(0.01)
            seen = seen or path.exists()
    assert seen == first and not path.exists()
