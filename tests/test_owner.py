"""Who holds a run's folder: a living owner is respected, wherever it runs, and of those that follow a dead one, one does."""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest
import torch
from squeue_stand_in import install, job, tell

from restok.files import FileError, owner
from restok.files.owner import Owner
from restok.training.state import RunFolder, StateError


def hold(folder):
    return Owner(folder, FileError)


def left(folder, **facts):
    """What an owner that was killed leaves."""
    record = hold(folder).record | {"token": "another"} | facts
    (folder / f"{owner.NAME}.3").write_text(json.dumps(record))
    return folder / f"{owner.NAME}.3"


def take(folder):
    with hold(folder):
        assert len(list(folder.iterdir())) == 1


def waits(caplog, action):
    """Whether it waits for a sign of life."""
    caplog.clear()
    with caplog.at_level("INFO"):
        action()
    return "waits up to" in caplog.text


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(owner, "BEAT", 0.05)
    monkeypatch.setattr(owner, "DEAD", 1.0)


def test_a_living_process_of_this_machine_is_respected_and_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with hold(tmp_path), pytest.raises(FileError, match=rf"process {os.getpid()} of job 71, restart 2 on .*, since 20.* UTC"):
        hold(tmp_path).__enter__()
    with hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dead", ["gone", "number used again", "not yet asked after"])
def test_a_dead_process_of_this_machine_is_followed_at_once_and_named(dead, tmp_path, caplog):
    child = subprocess.Popen([sys.executable, "-c", ""])
    if dead == "gone":
        child.wait()
    while dead == "not yet asked after" and owner._started(child.pid) != "":
        time.sleep(0.01)
    left(tmp_path, **({"started": "1"} if dead == "number used again" else {"pid": child.pid}))

    def follow():
        with hold(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == [f"{owner.NAME}.4"]

    assert not waits(caplog, follow)
    assert "was held by process" in caplog.text and "which is dead; taken over" in caplog.text
    child.wait()


def test_an_owner_elsewhere_is_respected_while_its_file_is_touched(tmp_path, quick, caplog):
    file, done = left(tmp_path, system="elsewhere", host="node7", pid=1), threading.Event()

    def live():
        while not done.wait(0.1):
            os.utime(file)

    other = threading.Thread(target=live)
    other.start()
    with pytest.raises(FileError, match="process 1 on node7"):
        hold(tmp_path).__enter__()
    done.set()
    other.join()
    assert waits(caplog, lambda: take(tmp_path))               # for a sign of life, in vain
    left(tmp_path, system="elsewhere")
    os.utime(file, (1, 1))
    assert not waits(caplog, lambda: take(tmp_path))


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Tells SLURM's jobs. The folder of a run is beside it."""
    (tmp_path / "run").mkdir()
    file = install(tmp_path, monkeypatch)
    tell(file)
    return lambda *jobs: tell(file, *jobs)




@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "SUSPENDED"])
def test_an_owner_whose_job_runs_elsewhere_is_respected_at_once(state, tmp_path, squeue):
    """However long ago its file was touched: a job that is suspended touches none."""
    squeue(job("71", state, started=int(time.time())))
    file = left(tmp_path / "run", system="elsewhere", host="node7", pid=1, job="71, restart 2")
    os.utime(file, (1, 1))
    with pytest.raises(FileError, match="process 1 of job 71, restart 2 on node7"):
        hold(tmp_path / "run").__enter__()


@pytest.mark.parametrize("jobs", [[], [job("71", "NODE_FAIL")], [job("71", "PENDING")]],
                         ids=["unknown", "over", "requeued"])
def test_an_owner_whose_job_is_over_is_followed_at_once(jobs, tmp_path, squeue, caplog):
    squeue(*jobs)
    left(tmp_path / "run", system="elsewhere", job="71")
    assert not waits(caplog, lambda: take(tmp_path / "run"))
    assert "of job 71 on" in caplog.text and "which is dead; taken over" in caplog.text


def test_a_job_that_is_started_again_elsewhere_follows_itself_at_once(tmp_path, squeue, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    squeue(job("71", started=int(time.time())))
    left(tmp_path / "run", system="elsewhere", since=datetime.fromtimestamp(time.time() - 300, UTC).strftime(owner.SINCE))
    assert not waits(caplog, lambda: take(tmp_path / "run"))


@pytest.mark.parametrize(("facts", "jobs"), [
    ({"job": "71"}, [job("71", started=int(time.time()))]),            # a step of this job, on another node
    ({"job": "72"}, [job("72", "A_NEW_STATE")]),
    ({"job": "72", "cluster": "another"}, [])], ids=["this job", "no answer", "another cluster"])
def test_where_slurm_cannot_tell_signs_of_life_do(facts, jobs, tmp_path, squeue, quick, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "this")
    squeue(*jobs)
    left(tmp_path / "run", **{"system": "elsewhere"} | facts)
    assert waits(caplog, lambda: take(tmp_path / "run"))


def test_another_user_s_job_may_be_hidden_so_signs_of_life_tell(tmp_path, squeue, quick, caplog):
    if os.getuid() != 0:
        pytest.skip("root alone gives files to others")
    os.chown(left(tmp_path / "run", system="elsewhere", job="71"), 12345, -1)
    assert waits(caplog, lambda: take(tmp_path / "run"))


def test_two_processes_of_one_job_on_one_machine_are_told_apart_by_their_numbers(tmp_path, squeue, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    with hold(tmp_path / "run"), pytest.raises(FileError, match="of job 71"):
        hold(tmp_path / "run").__enter__()


def test_a_file_that_says_nothing_yet_is_an_owner_s_until_it_is_old(tmp_path, quick, caplog):
    left(tmp_path).write_text("")
    with hold(tmp_path):
        assert "held by a process that has just come, or whose record was lost, which is dead" in caplog.text


def test_an_owner_shows_that_it_lives(tmp_path, quick):
    with hold(tmp_path) as own:
        os.utime(own.file, (1, 1))
        until = time.monotonic() + 60
        while own.file.stat().st_mtime == 1:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_of_many_that_follow_a_dead_owner_one_does(tmp_path):
    for _ in range(20):
        left(tmp_path, started="1")
        held, refused, start, end = [], [], threading.Barrier(6), threading.Barrier(6)

        def follow(held=held, refused=refused, start=start, end=end):
            own = hold(tmp_path)
            start.wait()
            try:
                with own:
                    held.append(own)
                    end.wait()
            except FileError as error:
                refused.append(error)
                end.wait()

        threads = [threading.Thread(target=follow) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(held), len(refused)) == (1, 5)


def test_a_run_that_was_taken_for_dead_writes_nothing_more(tmp_path):
    with RunFolder(tmp_path, "run") as run:
        run.save(1, {"weights": torch.ones(1)})
        run.owner.file.unlink()
        other = left(tmp_path)
        with pytest.raises(StateError, match="another run took it over, since this one gave no sign of life"):
            run.save(2, {"weights": torch.ones(1)})
    assert other.exists() and [path.name for path in run.states()] == ["state_1.pt"]


def test_an_owner_that_finds_no_room_leaves_no_file(tmp_path, small_files):
    with pytest.raises(OSError, match=r"\.run\.owner\.1"), small_files(10):
        hold(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_begun_is_free_again(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, "run")
    with monkeypatch.context() as patched:
        patched.setattr("restok.files.run.remove_left_over", Mock(side_effect=OSError("input/output error")))
        with pytest.raises(OSError, match="input/output error"):
            run.__enter__()
    assert not list(tmp_path.glob(f"{owner.NAME}*"))
    with run:
        assert run.owner.holds()
