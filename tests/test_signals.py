"""A signal ends a training with a saved state, and any other work at once, with nothing unfinished left behind."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, SMALL, small_params
from test_distributed import jobs, task, together

from restok import signals
from restok.distributed import leave_together, own_share
from restok.files import sha256_file
from restok.files.artifact import Origin
from restok.training.generator import GeneratorJob, train_generator
from restok.training.tokenizer import TokenizerJob

TRAINING = [f"{part}_training.{setting}" for part in ("tokenizer", "generator") for setting in (
    "batch_size=4", "save_every=4", "log_every=1", "optimizer.warmup_steps=2")]
TRAINING += ["tokenizer_training.checkpoints={first: 8}", "generator_training.micro_batch=2"]
SETTINGS = ["--params", ROOT / "params/demo.yaml", *(word for one in (*SMALL, *TRAINING) for word in ("--set", one))]


@pytest.fixture(autouse=True)
def nobody_ignores():
    """Who started the tests may have ignored signals, as nohup and a shell's & do: the package, rightly, leaves that so."""
    usual = dict.fromkeys(signals.SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def train_words(folder, codes, steps=8):
    return ["train-generator", *SETTINGS, "--set", f"generator_training.steps={steps}", "--codes", codes,
            "--tokenizer", codes.parent, "--run", folder / "run", "--out", folder / "out"]


def during(monkeypatch, job, at, act):
    """`act()` happens in the middle of step `at`."""
    step = job.step

    def with_act(self, batch, number):
        if number == at:
            act()
        return step(self, batch, number)

    monkeypatch.setattr(job, "step", with_act)


def states(folder):
    return sorted(path.name for path in folder.glob("run/*/state_*.pt"))


def left_over(folder):
    """What is there beside a run's own files, such as its owner's, and what is unfinished."""
    return [path.name for path in folder.rglob(".*") if path.name not in (".run.lock", ".out.lock", ".finished.lock")]


# A training

@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_training_finishes_its_step_saves_and_goes_on_later(name, command, codes, tmp_path, monkeypatch):
    def act():
        for number in (signal.Signals[name], signal.SIGTERM, signal.SIGINT):            # a second one changes nothing
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        during(patch, GeneratorJob, 4, act)
        stopped = command(*train_words(tmp_path, codes))
    assert stopped.exit_code == signals.EXIT == 75
    said = stopped.output.strip().splitlines()[-1]
    assert said.startswith(f"interrupted by {name} after step 5 of 8, whose state is saved in {tmp_path / 'run'}")
    assert states(tmp_path) == ["state_4.pt", "state_5.pt"] and left_over(tmp_path) == [] and not (tmp_path / "out").exists()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    if name == "SIGTERM":
        resumed, whole = command(*train_words(tmp_path, codes)), command(*train_words(tmp_path / "whole", codes))
        assert resumed.exit_code == whole.exit_code == 0, resumed.output
        assert sha256_file(tmp_path / "out/model.safetensors") == sha256_file(tmp_path / "whole/out/model.safetensors")
        rows = [[json.loads(line)["step"] for line in open(tmp_path / name / "log.jsonl")] for name in ("out", "whole/out")]
        assert rows == [list(range(1, 9))] * 2


def test_a_signal_in_the_last_step_lets_the_training_finish(command, codes, tmp_path, monkeypatch):
    during(monkeypatch, GeneratorJob, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert command(*train_words(tmp_path, codes)).exit_code == 0 and (tmp_path / "out/model.safetensors").exists()


def test_before_the_first_step_it_leaves_at_once(command, codes, tmp_path, monkeypatch):
    monkeypatch.setattr(GeneratorJob, "__init__", lambda self, *_: os.kill(os.getpid(), signal.SIGTERM))
    stopped = command(*train_words(tmp_path, codes))
    assert stopped.exit_code == 75 and "interrupted by SIGTERM; what is finished stays" in stopped.output
    assert "Traceback" not in stopped.output and left_over(tmp_path) == [] and not (tmp_path / "out").exists()


def test_processes_that_read_images_leave_signals_to_the_training(command, digits, classifier, tmp_path, monkeypatch):
    """A terminal, or a scheduler, sends them to all."""
    def act():
        readers = [child.pid for child in multiprocessing.active_children()]
        assert len(readers) == 1
        for name in ("INT", "TERM"):                            # from elsewhere: what the parent sends, they obey
            subprocess.run(["kill", f"-{name}", *map(str, (*readers, os.getpid()))], check=True)
        time.sleep(0.3)
        assert [child.pid for child in multiprocessing.active_children()] == readers

    during(monkeypatch, TokenizerJob, 2, act)
    stopped = command("train-tokenizer", *SETTINGS, "--set", "data.workers=1", "--data", digits, "--classifier", classifier,
                      "--checkpoint", "first", "--run", tmp_path / "run", "--out", tmp_path / "out")
    assert stopped.exit_code == 75 and "after step 3 of 8" in stopped.output, stopped.output
    assert states(tmp_path) == ["state_3.pt"]
    for reader in multiprocessing.active_children():            # as at the end of the command
        reader.terminate()
        reader.join(10)
        assert reader.exitcode == 0


# Several processes

@pytest.mark.parametrize("asked", [[1], [0, 1]])
def test_all_processes_leave_together_whoever_was_asked(asked, codes, tmp_path, monkeypatch):
    params = small_params(*TRAINING, "generator_training.steps=8")

    def work():
        during(monkeypatch, GeneratorJob, 2, lambda: own_share().part in asked and os.kill(os.getpid(), signal.SIGTERM))
        with signals.answered():
            leave_together()
            try:
                train_generator(params, codes, codes.parent, tmp_path / "run", tmp_path / "out")
            except signals.Interrupted as stop:
                return str(stop)

    for said in together(work):
        assert said.startswith("by SIGTERM after step 3 of 8, whose state is saved in")
    assert states(tmp_path) == ["state_3.pt"] and left_over(tmp_path) == []


def test_both_tasks_of_srun_leave_with_one_exit_code_when_one_is_asked(codes, tmp_path):
    words = [str(word) for word in train_words(tmp_path, codes, 100_000)]
    job = next(jobs)
    tasks = [subprocess.Popen([str(Path(sys.executable).with_name("restok")), *words], env=os.environ | task(rank, 2, job),
                              stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for line in tasks[0].stderr:
        if "generator 5/100000" in line:
            break
    tasks[1].send_signal(signal.SIGTERM)
    said = [one.communicate(timeout=60)[1] for one in tasks]
    assert [one.returncode for one in tasks] == [75, 75], said
    last = {text.strip().splitlines()[-1] for text in said}
    assert len(last) == 1 and last.pop().startswith("interrupted by SIGTERM after step ")
    assert len(states(tmp_path)) <= 2 and not any("Traceback" in text for text in said)


# Before a verb, and within any other

EARLY = """
import os, signal, sys
class Kill:
    def find_spec(self, name, *rest):
        if name == "typer":
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Kill())
sys.argv = ["/usr/bin/{argv}", "train-generator"]
from restok.cli import app
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_while_the_command_is_imported_it_leaves_at_once(name):
    code = EARLY.format(name=name, argv="restok")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, f"interrupted by {name}, before anything was done\n")


def test_a_program_that_imports_the_package_answers_signals_itself():
    done = subprocess.run([sys.executable, "-c", EARLY.format(name="SIGTERM", argv="mine")], cwd=ROOT)
    assert done.returncode == -signal.SIGTERM


def test_a_signal_that_was_ignored_stays_ignored(command, codes, tmp_path, monkeypatch):
    """As under nohup."""
    during(monkeypatch, GeneratorJob, 2, lambda: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert command(*train_words(tmp_path, codes)).exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


LATE = """
import atexit, os, signal, sys
sys.argv = ["restok", "layout", "--params", "params/demo.yaml", "--out", sys.argv[1]]
from restok.cli import app
class Last:
    def __del__(self):
        self.kill(self.pid, self.number)
last = Last()
last.kill, last.pid, last.number = os.kill, os.getpid(), signal.SIGTERM
sys.modules["last"] = last                          # gone when Python has given up all handlers
app()
"""


def test_when_the_work_is_done_a_signal_changes_nothing(tmp_path):
    """torchrun sends one to the others as soon as a process has left."""
    done = subprocess.run([sys.executable, "-c", LATE, tmp_path / "layout.npz"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "layout.npz").exists()) == (0, True), done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_another_verb_ends_in_one_line_and_leaves_nothing_unfinished(name, command, tmp_path, monkeypatch):
    def seal(self, folder, *given, **facts):
        assert list(folder.iterdir())
        for _ in range(2):                                      # the second one comes while the first one tidies up
            os.kill(os.getpid(), signal.Signals[name])

    monkeypatch.setattr(Origin, "seal", seal)
    stopped = command("prepare", "--params", ROOT / "params/demo.yaml", "--run", tmp_path / "run", "--out", tmp_path / "out")
    assert stopped.exit_code == 75 and "Traceback" not in stopped.output
    assert stopped.output.strip().splitlines()[-1].startswith(f"interrupted by {name}; what is finished stays")
    assert left_over(tmp_path) == [] and not (tmp_path / "out").exists()
