"""MLflow's stores as they fail: many writers at once, servers that hang, die and come back, a locked file, a full disk.

`make tracking` runs these; they start servers on loopback, and end them.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import ROOT
from spoilt import chain

from restok.files import write_json
from restok.files.making import made
from restok.mirror.child import SWITCH

RESTOK = [sys.executable, "-c", "from restok.cli import app; app()"]
WRITERS, ROWS = 16, 100
LOSSES = "mse", "perceptual", "codebook", "commitment", "gan", "discriminator"
PLACE = "tokenizer/main/750k"


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW") and name != SWITCH}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def restok(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run([*RESTOK, *words], cwd=home, env=environment(**more), capture_output=True, text=True, timeout=300)


def clone(home: Path, *names: str) -> Path:
    """Parameter files of some runs, all of them the short one."""
    shutil.copytree(ROOT / "params", home / "params")
    for name in names:
        shutil.copy(ROOT / "params/short.yaml", home / f"params/{name}.yaml")
    return home


def training(home: Path, name: str) -> Path:
    """A training that goes on; returns its log, without rows."""
    folder = home / "runs" / name / PLACE / "0123456789ab"
    folder.mkdir(parents=True)
    one = made()
    write_json(folder / "calls.json", [one])
    write_json(folder / "origin.json", {"format": 1, "kind": "tokenizer", "settings": {"seed": 1, "name": name}, "inputs": {},
                                        "paths": {}, "made": [one], "out": f"results/{name}/{PLACE}"})
    return folder / "log.jsonl"


def add(log: Path, steps: range) -> None:
    with log.open("a") as file:
        for step in steps:
            file.write(json.dumps({"step": step, "time": 1e9 + step, **{key: step / 7 for key in LOSSES}}) + "\n")


def points(database: Path) -> dict[str, list[tuple[int, float]]]:
    """Of each experiment, the curve of mse."""
    query = ("select experiments.name, metrics.step, metrics.value from metrics join runs using (run_uuid) "
             "join experiments using (experiment_id) where key = 'loss/mse' order by step")
    with sqlite3.connect(database, timeout=60) as base:
        found: dict[str, list[tuple[int, float]]] = {}
        for name, step, value in base.execute(query):
            found.setdefault(name, []).append((step, value))
    return found


def curve(steps: range) -> list[tuple[int, float]]:
    return [(step, step / 7) for step in steps]


def test_sixteen_writers_on_one_file_of_sqlite_lose_nothing(tmp_path):
    """All of them find no store, and make it."""
    names = [f"run{number:02}" for number in range(WRITERS)]
    clone(tmp_path, *names)
    for name in names:
        add(training(tmp_path, name), range(1, ROWS + 1))
    writers = {name: subprocess.Popen([*RESTOK, "track-sync", name], cwd=tmp_path, env=environment(), text=True,
                                      stderr=subprocess.PIPE) for name in names}
    said = {name: writer.communicate(timeout=600)[1] for name, writer in writers.items()}
    assert {name: writer.returncode for name, writer in writers.items()} == dict.fromkeys(names, 0), said
    assert points(tmp_path / "mlflow.db") == dict.fromkeys(names, curve(range(1, ROWS + 1)))


def test_the_workflow_sends_all_that_it_makes():
    """Of the short run that `make short` left: its mirror may be sending the last of it."""
    database, results = ROOT / "mlflow.db", ROOT / "results/short"
    if not (results / "evaluation/main").is_dir() or not database.exists():
        pytest.skip("`make short` makes it")
    until = time.monotonic() + 300
    while (done := restok(ROOT, "track-sync", "short")).returncode and "another mirror" in done.stderr:
        assert time.monotonic() < until
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(database) as base:
        sent = {path for path, in base.execute("select value from tags where key = 'path'")}
    made = [path.parent for stage in ("tokenizer", "codes", "generator") for path in results.glob(f"{stage}/*/*/manifest.json")]
    made += [path.parent for path in results.glob("evaluation/*/*/generation.json")]
    assert len(made) > 60 and {path.relative_to(ROOT).as_posix() for path in made} <= sent


# A training, and stores that fail.

@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Images and their classifier, and the weights that a training makes of them without MLflow."""
    home = tmp_path_factory.mktemp("prepared")
    chain.lay_out(home)
    prepare, classify, *rest = chain.commands()
    train = next(words for words in rest if words.startswith("train-tokenizer")).replace("runs/", "runs/run/")
    for words in (prepare, classify):
        assert restok(home, *shlex.split(words)).returncode == 0
    done = restok(home, *shlex.split(train), **{SWITCH: "off"})
    assert done.returncode == 0 and not (home / "runs/run/tracking").exists(), done.stderr
    return home, shlex.split(train)


@pytest.fixture
def untrained(prepared, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(prepared[0], home, copy_function=os.link, ignore=shutil.ignore_patterns("tokenizer"))
    return home


def weights(home: Path) -> str:
    return sha256((home / f"results/run/{PLACE}/model.safetensors").read_bytes()).hexdigest()


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that takes calls, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def nobody() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


def mirrors(home: Path) -> list[int]:
    """The processes that hold, or wait to hold, the mirror of this clone."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and os.readlink(process / "cwd") == str(home) and "--child" in (
                    process / "cmdline").read_text().split("\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def end(home: Path) -> None:
    for pid in mirrors(home):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("store", [silent, nobody])
def test_a_training_neither_waits_for_a_store_that_does_not_answer_nor_changes(store, prepared, untrained):
    with store() as address:
        done = restok(untrained, *prepared[1], MLFLOW_TRACKING_URI=address, MLFLOW_HTTP_REQUEST_TIMEOUT="60")
        waiting = mirrors(untrained)
        assert done.returncode == 0, done.stderr
        assert store is nobody or waiting                     # its mirror is still at it, and the training has ended
        assert weights(untrained) == weights(prepared[0])
        assert "mlflow" not in done.stderr.lower()
        end(untrained)
    sent = restok(untrained, "track-sync", "run")             # what was not sent is sent later
    assert sent.returncode == 0, sent.stderr
    rows = (untrained / f"results/run/{PLACE}/log.jsonl").read_text().splitlines()
    assert [step for step, _ in points(untrained / "mlflow.db")["run"]] == [json.loads(row)["step"] for row in rows]


def test_a_training_by_hand_is_followed(prepared, untrained):
    done = restok(untrained, *prepared[1])
    assert done.returncode == 0 and weights(untrained) == weights(prepared[0])
    until = time.monotonic() + 240
    while mirrors(untrained) and time.monotonic() < until:
        time.sleep(0.2)
    rows = (untrained / f"results/run/{PLACE}/log.jsonl").read_text().splitlines()
    assert len(points(untrained / "mlflow.db")["run"]) == len(rows)


def refused(done: subprocess.CompletedProcess) -> bool:
    """One message, with what to do."""
    return (done.returncode == 1 and "Traceback" not in done.stderr and "TrackingError" in done.stderr
            and "call `restok track-sync` again" in done.stderr)


def test_a_locked_file_a_full_disk_and_no_folder_are_each_one_message_and_nothing_is_lost(tmp_path):
    home = clone(tmp_path, "run")
    add(training(home, "run"), range(1, 11))
    full = subprocess.run(["bash", "-c", "ulimit -f 200; exec \"$@\"", "-", *RESTOK, "track-sync", "run"], cwd=home,
                          env=environment(), capture_output=True, text=True, timeout=300)
    assert refused(full), full.stderr
    for left in home.glob("mlflow.db*"):
        left.unlink()
    (home / "file").write_text("")
    nowhere = restok(home, "track-sync", "run", MLFLOW_TRACKING_URI=f"sqlite:///{home / 'file/mlflow.db'}")
    assert refused(nowhere), nowhere.stderr
    assert restok(home, "track-sync", "run").returncode == 0
    add(home / f"runs/run/{PLACE}/0123456789ab/log.jsonl", range(11, 21))
    with sqlite3.connect(home / "mlflow.db", isolation_level=None) as base:
        base.execute("begin exclusive")
        locked = restok(home, "track-sync", "run")
        base.execute("rollback")
    assert refused(locked) and "locked" in locked.stderr, locked.stderr
    assert restok(home, "track-sync", "run").returncode == 0
    assert points(home / "mlflow.db") == {"run": curve(range(1, 21))}


@contextmanager
def server(home: Path, port: int) -> Iterator[subprocess.Popen]:
    """MLflow's own, on a file of SQLite."""
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{home / 'server.db'}", "--artifacts-destination", str(home / "artifacts")]
    alone = environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    process = subprocess.Popen([sys.executable, *words], env=alone, cwd=home, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 240
        while True:
            assert process.poll() is None and time.monotonic() < until
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(database: Path, steps: range) -> None:
    until = time.monotonic() + 240
    while points(database).get("run") != curve(steps):
        assert time.monotonic() < until, points(database)
        time.sleep(0.5)


def test_a_server_that_dies_and_comes_back_gets_the_rest_and_nothing_twice(tmp_path):
    home, log = clone(tmp_path, "run"), training(tmp_path, "run")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    add(log, range(1, 6))
    follower = None
    try:
        with server(home, port):
            follower = subprocess.Popen([*RESTOK, "track-sync", "run", "--follow"], cwd=home, stderr=subprocess.PIPE, text=True,
                                        env=environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}"))
            wait_for(home / "server.db", range(1, 6))
            add(log, range(6, 11))
            wait_for(home / "server.db", range(1, 11))
        add(log, range(11, 16))
        time.sleep(12)                                        # it looks, and finds nobody
        assert follower.poll() is None
        with server(home, port):
            add(log, range(16, 21))
            wait_for(home / "server.db", range(1, 21))
            follower.send_signal(signal.SIGINT)
            said = follower.communicate(timeout=120)[1]
        assert follower.returncode == 0 and "Traceback" not in said, said
        assert said.count("WARNING") == 1 and "does not answer" in said, said
    finally:
        if follower and follower.poll() is None:
            follower.kill()
