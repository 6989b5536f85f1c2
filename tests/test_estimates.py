"""Disk and hours of a run, before it: by the sizes in its settings, and by a short measured run."""

import os
import shutil

import pytest
import torch
from conftest import ROOT, small_params
from small_sheet import TWO, rows

from restok.config.load import load_params
from restok.experiments import Tree, work
from restok.networks.classifier import SmallClassifier
from restok.stages.doctor import disk
from restok.stages.doctor.hours import hours, of_task
from restok.stages.doctor.speed import FULL, Speed, Speeds, _timed, measure
from restok.training.generator import GeneratorJob
from restok.training.loop import sizes
from restok.training.tokenizer import TokenizerJob

COUNTS = work.Counts(1000, 100, 5_000_000, True)


# Disk


def test_the_size_of_a_state_is_that_of_the_training_itself(tmp_path):
    params = small_params()
    SmallClassifier(10, params.classifier.channels).save(tmp_path)
    sized = disk._Sized(tmp_path)
    for estimated, job in ((sized.tokenizer(params), TokenizerJob(params, tmp_path, torch.device("cpu"))),
                           (sized.generator(params), GeneratorJob(params, torch.device("cpu")))):
        state, model = sizes(job)
        assert estimated.weights == model and estimated.state == pytest.approx(state, rel=0.01)


def test_what_rows_share_is_counted_once(tmp_path):
    tree = Tree("results/demo", rows(tmp_path, *TWO))
    params = load_params(tmp_path / "demo.yaml")
    main, every = (work.results(tree, params, trials) for trials in (work.own(tree), tree.sheet.trials))
    labels = len(params.tokenizer_training.checkpoints)
    count = [sum(result.stage == "tokenizer" for result in made.values()) for made in (main, every)]
    assert count[0] == labels and count[1] == labels + params.experiments.ablation_seeds
    SmallClassifier(10, params.classifier.channels).save(tmp_path / "classifier")
    needs = {need.what: need for need in disk.needs(main, every, COUNTS, tmp_path / "classifier")}
    assert needs["prepared images"][1:3] == (5_000_000, 5_000_000)
    codes = 1000 * (2 * 5 * params.generator.tokens + 8)                            # the demo's five crops
    assert needs["codes"].main == labels * codes and needs["codes"].sheet == count[1] * codes
    trained = sum(task.images for task in work.tasks(main, COUNTS) if task.verb == "train-tokenizer")
    assert trained == params.tokenizer_training.batch_size * max(params.tokenizer_training.checkpoints.values())


def test_files_of_two_names_stand_once(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "results/a").write_bytes(bytes(100))
    os.link(tmp_path / "results/a", tmp_path / "runs/a")
    (tmp_path / "runs/b").write_bytes(bytes(10))
    assert disk.standing([tmp_path / "results", tmp_path / "runs", tmp_path / "nowhere"]) == 110
    assert disk.free([tmp_path / "not/yet/there"]) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)


# Hours


def test_hours_are_images_by_seconds_and_say_what_they_are_scaled_from(tmp_path):
    tree = Tree("results/demo", rows(tmp_path, *TWO))
    params = load_params(tmp_path / "demo.yaml", ["data.workers=2"])
    main, every = (list(work.tasks(work.results(tree, params, trials), COUNTS))
                   for trials in (work.own(tree), tree.sheet.trials))
    names = ("image", "tokenizer", "generator", "encode", "decode", "judge", "score", "compare")
    known = {name: Speed(0.01, 0, 8) for name in names}
    table = {row.verb: row for row in hours(main, every, Speeds("GPU", 10**9, known, {"draw, ntp 4, guided": "too late"}))}
    assert list(table) == ["prepare", "statistics", "train-tokenizer", "encode", "train-generator", "score-guidance",
                           "evaluate, reconstructions", "evaluate, samples", "evaluate, samples without guidance"]
    assert table["prepare"].main == pytest.approx(1100 * 0.01 / 2 / 3600) and not table["prepare"].gpu
    assert table["encode"].main == pytest.approx(4 * 5000 * 0.01 / 3600) and table["encode"].gpu
    assert table["evaluate, reconstructions"].main == pytest.approx(4 * 100 * 0.04 / 3600)
    assert table["train-tokenizer"].sheet > table["train-tokenizer"].main
    assert "training 100/s in batches of 8" in table["train-tokenizer"].scaled_from
    assert table["score-guidance"][1:3] == (None, None) and table["score-guidance"].scaled_from == "not measured: too late"


def test_hours_of_what_there_is_no_gpu_for_are_counted_and_say_so():
    params = load_params(ROOT / "params/imagenet256.yaml", ["evaluation.also=[]"])
    tasks = [work.task(stage, params, label, COUNTS) for stage, label in
             (("data", None), ("reference", None), ("tokenizer", "250k"), ("generation", "250k"))]
    reading = {"image": Speed(0.012, 0, 1)}
    faults = dict.fromkeys(("judge", "tokenizer", "draw, ntp 4, guided", "decode"), "no GPU here")
    table = {row.verb: row for row in hours(tasks, tasks, Speeds("CPU", None, reading, faults, no_gpu=True))}
    assert table["prepare"][3:] == (False, False, "reading 500 x 375 JPEGs on one core 83.3/s")
    assert table["train-tokenizer"].main == pytest.approx(250_000 * 256 * 3.8e12 / 100e12 / 3600, rel=0.01)
    assert table["train-tokenizer"][3:] == (True, True, "counted, not measured: 3.8 TFLOP an image at 100 TFLOP/s")
    assert table["statistics"].main == pytest.approx(100 * 0.012 / 12 / 3600)            # 12 processes that read
    assert table["statistics"].scaled_from.endswith("TFLOP/s, but no faster than reading 500 x 375 JPEGs on one core 83.3/s")
    late = Speeds("GPU", 10**9, reading, dict.fromkeys(faults, FULL))                    # a fault stays one
    assert {row.verb: (row.main, row.counted, row.scaled_from) for row in hours(tasks, tasks, late)}["train-tokenizer"] == (
        None, False, f"not measured: {FULL}")
    assert of_task(tasks[2], late) is None


def test_what_is_not_measured_within_the_time_is_said():
    found = measure(small_params(), [work.drawing(small_params(), guided=True)], within=0.5)
    assert found.speeds == {} and not found.no_gpu
    assert set(found.faults.values()) == {"not within 0.5 s"} and "draw, ntp 4, guided" in found.faults


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_models_too_large_for_a_cpu_are_not_measured_and_it_is_said():
    found = measure(small_params("generator.width=1024"), [])
    assert found.no_gpu and set(found.speeds) == {"image"}
    assert found.faults["tokenizer"] == "models of 25 million parameters, and no GPU here"


def test_a_step_that_a_gpu_does_not_hold_is_no_error_and_the_next_one_is_measured():
    def full():
        raise torch.OutOfMemoryError

    cpu = torch.device("cpu")
    assert _timed(full, 1, cpu) == _timed(lambda: full, 1, cpu) == {"fault": FULL}
    assert _timed(lambda: lambda: None, 4, cpu)["batch"] == 4
