"""What a job is taken to cost before anybody has measured it."""

import subprocess
import sys

import pytest
from conftest import ROOT

from restok.config.load import load_params
from restok.experiments import cost, work
from restok.experiments.places import STAGES

PAPER, DEMO = (load_params(ROOT / f"params/{name}.yaml") for name in ("imagenet256", "demo"))


def test_hours_are_images_by_operations_over_a_rate():
    task = work.task("tokenizer", PAPER, "500k", work.IMAGENET)
    assert task.images == 250_000 * 256                                  # from the checkpoint before
    operations = task.images * cost.operations("tokenizer", PAPER)
    assert cost.hours(task) == pytest.approx(operations / cost.GPU_RATE / 3600)
    demo = work.task("generator", DEMO, "1M", work.DIGITS)
    assert cost.hours(demo) == pytest.approx(demo.images * cost.operations("generator", DEMO) / cost.CPU_RATE / 3600)
    assert cost.hours(work.task("data", PAPER, None, work.IMAGENET)) == pytest.approx(1_331_167 * cost.READING / 12 / 3600)


def test_samples_without_guidance_take_half_the_draws():
    guided, unguided = (work.task(stage, PAPER, "750k", work.IMAGENET) for stage in ("generation", "unguided"))
    assert unguided.images == guided.images == 50_000 and guided.parts[1:] == unguided.parts[1:]
    assert cost.operations(guided.parts[0], PAPER) == 2 * cost.operations(unguided.parts[0], PAPER)


def test_what_measures_images_is_no_faster_than_its_readers():
    for also, waits in (([], True), (["dinov2"], False)):        # Inception alone waits for them; for DINOv2 they wait
        params = load_params(ROOT / "params/imagenet256.yaml", [f"evaluation.also={also}"])
        task = work.task("reference", params, None, work.IMAGENET)
        judge, reading = cost.counted(task)["judge"], cost.READING / 12
        assert cost.seconds(task, cost.counted(task)) == max(reading, judge) and (judge < reading) == waits


@pytest.mark.parametrize("params", [PAPER, DEMO], ids=["imagenet256", "demo"])
def test_minutes_of_every_stage_are_tens(params):
    for stage in STAGES:
        if stage != "classifier" or params.classifier:
            asked = cost.minutes(stage, params, "1M")
            assert asked >= 10 and asked % 10 == 0 and isinstance(asked, int), stage
    assert cost.minutes("layout", params, None) == cost.minutes("guidance", params, "1M") == 10


def test_minutes_fall_with_processes_and_with_parts():
    whole = cost.minutes("tokenizer", PAPER, "250k")
    assert whole == pytest.approx(10 + 3 * 60 * cost.hours(work.task("tokenizer", PAPER, "250k", work.IMAGENET)), abs=10)
    assert cost.minutes("tokenizer", PAPER, "250k", processes=8) == pytest.approx(whole / 8, abs=20)
    assert cost.minutes("codes", PAPER, "250k", parts=64) <= 60 < cost.minutes("codes", PAPER, "250k")


def test_every_stage_that_takes_a_gpu_is_a_result_of_the_workflow():
    counts = work.Counts(1000, 100, 0, True)
    for stage in STAGES:
        if stage != "classifier":
            assert bool(work.task(stage, PAPER, "1M", counts).images) == (stage not in ("layout", "guidance"))


def test_nothing_of_it_loads_torch():
    code = "import sys, restok.experiments.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
