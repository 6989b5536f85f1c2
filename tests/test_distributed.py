"""Processes: who started them, what each one's share is, and that together they do what one does, once."""

import itertools
import json
import multiprocessing
import os
import queue
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import small_params
from PIL import Image

from restok.data.images import open_images
from restok.data.reading import DataError
from restok.distributed import (
    WHOLE,
    Process,
    Shard,
    device,
    first_host,
    from_first,
    gathered,
    is_first,
    launched,
    own_share,
    processes,
    shared_errors,
)
from restok.errors import RestokError
from restok.files import sha256_file
from restok.files.making import made
from restok.metrics.statistics import Statistics
from restok.stages.evaluator import CHUNK, Evaluator, MeasureError
from restok.stages.subjects import images_of

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODELIST": "n[1-2]"}
jobs = itertools.count(os.getpid() * 100)                # so that no two groups meet at one port


def step(rank=0, count=2, job=7, number=0, **more):
    """What SLURM 22.05 sets in a task of a step on this machine."""
    return {"SLURM_JOB_ID": job, "SLURM_NTASKS": count, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_ID": number,
            "SLURM_STEP_NUM_TASKS": count, "SLURM_STEP_NODELIST": "localhost", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"} | more


def task(*words, **more):
    return {name: str(value) for name, value in step(*words, **more).items()}


def _run(work, environment, results):
    os.environ.update(environment)
    try:
        with processes():
            results.put((own_share().part, work()))
    except Exception as error:
        results.put((int(environment["SLURM_PROCID"]), error))


def together(work, count=2):
    """What `work()` returns, or raises, in each task of one step, which know of each other by SLURM's variables alone."""
    context, job = multiprocessing.get_context("fork"), next(jobs)
    results = context.Queue()
    tasks = [context.Process(target=_run, args=(work, task(rank, count, job), results)) for rank in range(count)]
    for one in tasks:
        one.start()
    try:
        return [value for _, value in sorted(results.get(timeout=60) for _ in tasks)]
    except queue.Empty:
        pytest.fail("a process waits for another")
    finally:
        for one in tasks:
            one.kill()
            one.join()


# Who started them

@pytest.mark.parametrize(("environment", "process"), [
    ({}, None),
    (TORCHRUN, Process(3, 1, 4, "env://")),
    (task(1, 4), Process(1, 1, 4, "tcp://localhost:10707")),
    (task(1, 4) | TORCHRUN, Process(3, 1, 4, "env://")),                                   # srun ... torchrun ...
    (task(0, 1), None),
    (BATCH, None),                                                                         # sbatch --ntasks 2, without srun
    ({name: value for name, value in BATCH.items() if "ID" not in name}, None),            # the shell of salloc --ntasks 2
    (task(1, 2) | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),                       # sbatch within a step of two
    (task(1, 2, MASTER_ADDR="127.0.0.1", MASTER_PORT=5), Process(1, 1, 2, "tcp://127.0.0.1:5")),
    (task(1, 2, SLURM_STEP_NODELIST="no-such-host.invalid"), Process(1, 1, 2, "tcp://127.0.0.1:10707"))])
def test_a_process_knows_by_its_variables_whether_it_has_peers(environment, process):
    assert launched(environment) == process


def test_what_works_in_one_process_refuses_to_be_many(monkeypatch):
    """Under `srun -n 2` each task would train, or encode, the same."""
    assert device().type in ("cpu", "cuda")
    for name, value in task(1, 2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RestokError, match="2 processes were started together, but this step works in one: start one"):
        device()


def test_two_steps_never_share_a_port():
    meetings = [launched(task(job=job, number=number)).meeting for job in (7, 8, 9) for number in range(5)]
    assert len(set(meetings)) == 15


@pytest.mark.parametrize(("nodes", "host"), [
    ("n1", "n1"), ("n[1-2]", "n1"), ("a,b", "a"), ("gpu[003-010,12],cpu1", "gpu003"), ("cpu1,gpu[2-3]", "cpu1"),
    ("rack[0-1]node[3-5]", "rack0node3")])
def test_the_first_host_of_a_list(nodes, host):
    """As `scontrol show hostnames` says."""
    assert first_host(nodes) == host


# Shares

@pytest.mark.parametrize(("n", "unit", "parts"), [(100, 1, 3), (1124, 512, 2), (1124, 512, 4), (0, 512, 2), (5, 1, 8)])
def test_shards_make_up_the_whole_and_are_cut_between_units(n, unit, parts):
    bounds = [Shard(part, parts).bounds(n, unit) for part in range(parts)]
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])] and bounds[-1][1] == n
    assert all(stop % unit == 0 or stop == n for _, stop in bounds)
    halves = [Shard(1, parts).divided(Shard(half, 2)).bounds(n, unit) for half in (0, 1)]
    assert (halves[0][0], halves[1][1]) == bounds[1] and halves[0][1] == halves[1][0]


def test_a_process_alone_has_everything_and_hears_itself():
    assert own_share() == WHOLE == Shard(0, 1).divided(WHOLE) and is_first() and gathered("a") == ["a"]
    assert from_first(lambda: 3) == 3
    with pytest.raises(KeyError, match="b"), shared_errors():
        {}["b"]


# Together

def test_the_first_one_answers_for_all_and_an_error_of_one_is_everybodys():
    def work():
        told = from_first(lambda: f"from {own_share().part}")
        try:
            with shared_errors():
                if own_share().part == 1:
                    raise DataError("broken.png: replace it")
        except DataError as error:
            return told, str(error), is_first()

    assert together(work, 3) == [("from 0", "broken.png: replace it", first) for first in (True, False, False)]

    def fail():
        from_first(lambda: sha256_file("/nowhere"))

    assert [type(error) for error in together(fail)] == [FileNotFoundError] * 2


def folder_of(tmp_path, count=7):
    """Images in two classes."""
    for i in range(count):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(path)
    return tmp_path / "images"


def test_two_processes_check_every_image_once_in_all(tmp_path):
    folder = folder_of(tmp_path)

    def work():
        opened = []
        sys.addaudithook(lambda event, words: opened.append(words[0]) if event == "open" and isinstance(words[0], str | Path)
                         and Path(words[0]).suffix == ".png" else None)
        source = open_images(folder)
        return [str(path) for path in opened], (source.digest, source.n, source.size, source.labels.tolist())

    alone = open_images(folder)
    (first, one), (second, other) = together(work)
    assert sorted(first + second) == sorted(map(str, folder.rglob("*.png"))) and 3 <= len(first) <= 4
    assert one == other == (alone.digest, 7, (4, 4), alone.labels.tolist())


def test_one_of_two_processes_hashes_an_npz_of_images(theirs, monkeypatch):
    hashed = []
    monkeypatch.setattr("restok.data.images.sha256_file", lambda path: hashed.append(path) or sha256_file(path))

    def work():
        return open_images(theirs).digest, len(hashed)

    assert together(work) == [(sha256_file(theirs), 1), (sha256_file(theirs), 0)]


@pytest.mark.parametrize(("bad", "message"), [(b"no image", "5.png: not a readable image"), (None, "5.png: 4 x 9 pixels")])
def test_a_bad_image_in_one_share_is_refused_by_all(tmp_path, bad, message):
    folder = folder_of(tmp_path)
    if bad:
        (folder / "b/5.png").write_bytes(bad)
    else:
        Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(folder / "b/5.png")
    for error in together(lambda: open_images(folder)):
        assert isinstance(error, DataError) and message in str(error)


def test_a_sum_over_processes_says_what_all_of_it_was_made_of():
    def work():
        features = {"kind": "digits", "name": "first", "sha256": "f" * 64, "dims": 2, "resize": "none"}
        images = {"name": "set", "digest": "abc", "n": 4, "size": [4, 4], "rounding": "", "originals": None, "in_order": False}
        own = Statistics({"features": features, "batch_size": 8, "images": images, "shift": 0.5, "spatial": 0, "logits": 0,
                          "classes": 0, "knows_labels": False, "likeness": {}, "levels": [], "codebook_size": 0})
        own.made = [made() | {"device": "both", "seconds": 2.0}, made() | {"device": "ab"[own_share().part], "seconds": 3.0}]
        return [(one["device"], one["seconds"], one["calls"]) for one in own.all_reduced().made if one["device"] != "cpu"]

    assert together(work) == [[("both", 2.0, 1), ("a", 3.0, 1), ("b", 0.0, 0)]] * 2       # the first's time counts for all


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    path = tmp_path_factory.mktemp("theirs") / "theirs.npz"
    np.savez(path, arr_0=np.random.default_rng(0).integers(0, 256, (2 * CHUNK + 100, 16, 16, 3), dtype=np.uint8))
    return path


def evaluator_of(classifier):
    return Evaluator.load(small_params().evaluation, classifier, 16, 0)


def test_processes_share_a_shard_as_they_share_the_whole(classifier, theirs):
    def work():
        sums = evaluator_of(classifier).statistics(images_of(open_images(theirs)), None, Shard(1, 2))
        return {name: tensor.numpy() for name, tensor in sums.tensors.items()}

    alone = work()
    assert alone["seen"].tolist() == [0] * CHUNK + [1] * (CHUNK + 100)
    for sums in together(work):
        for name, tensor in alone.items():
            np.testing.assert_allclose(sums[name], tensor, rtol=1e-9, err_msg=name)


def test_processes_that_were_asked_for_different_things_are_refused(classifier, theirs):
    def work():
        return evaluator_of(classifier).statistics(images_of(open_images(theirs)), None, Shard(own_share().part, 2))

    for error in together(work):
        assert isinstance(error, MeasureError) and "different images or shards" in str(error)


def test_an_error_while_measuring_is_everybodys(classifier, theirs):
    def work():
        subject = images_of(open_images(theirs))
        if own_share().part:
            object.__setattr__(subject, "batches", lambda *_: 1 // 0)
        return evaluator_of(classifier).statistics(subject)

    first, second = together(work)
    assert isinstance(first, RuntimeError) and "process 1: ZeroDivisionError" in str(first)
    assert isinstance(second, ZeroDivisionError)


def test_two_tasks_of_srun_measure_what_one_process_does_and_the_first_one_writes(classifier, theirs, digits, tmp_path):
    command = [str(Path(sys.executable).with_name("restok")), "evaluate", "--params", "params/demo.yaml", "--samples",
               str(theirs), "--reference", str(digits), "--classifier", str(classifier), "--out"]
    subprocess.run([*command, str(tmp_path / "one.json")], check=True, capture_output=True)
    job = next(jobs)
    tasks = [subprocess.Popen([*command, str(tmp_path / "two.json"), "--statistics", str(tmp_path / "sums.safetensors")],
                              env=os.environ | task(rank, 2, job), stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    shown = [one.communicate(timeout=120)[1] for one in tasks]
    assert [one.returncode for one in tasks] == [0, 0], shown
    assert ["95 % interval" in text for text in shown] == [True, False]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    for part in ("metrics", "intervals"):
        assert flat(two[part]) == pytest.approx(flat(one[part]), rel=1e-9)
    (alone,), (first,) = one.pop("made"), two.pop("made")
    assert [alone["processes"], first["processes"]] == [1, 2] and first["calls"] == 1
    assert {key: value for key, value in one.items() if key not in ("metrics", "intervals", "digest")} == {
        key: value for key, value in two.items() if key not in ("metrics", "intervals", "digest")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "sums.safetensors", "two.json"]
    assert Statistics.load(tmp_path / "sums.safetensors").seen.tolist() == [1] * (2 * CHUNK + 100)


def flat(values, name=""):
    """The numbers of nested results, by their place."""
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        return {key: number for part, value in items for key, number in flat(value, f"{name}.{part}").items()}
    return {name: values} if isinstance(values, int | float) else {}
