import pytest
import torch
from conftest import small_params

from restok.bench import WARMUP, benchmark, time_runs
from restok.files import read_json
from restok.params import ConfigError


def test_every_step_of_the_chain_is_timed_and_written(tmp_path):
    rows = benchmark(small_params(), 2, 1, tmp_path / "bench.json")
    assert [row["case"] for row in rows] == [
        "tokenizer forward", "tokenizer update, alone", "encode", "decode", "tokenizer training step",
        "generator training step", "generate, 6 steps (ntp 4)", "generate, 16 steps (ntp all)", "code loading"]
    assert all(row["seconds"] > 0 and row["images_per_second"] == pytest.approx(2 / row["seconds"]) for row in rows)
    assert read_json(tmp_path / "bench.json") == rows


def test_networks_that_would_be_downloaded_are_left_out(tmp_path):
    params = small_params("objective.alignment.network=vit_large_patch16_dinov3.lvd1689m", "generator.ntp=all")
    cases = [row["case"] for row in benchmark(params, 1, 1, tmp_path / "bench.json")]
    assert "tokenizer training step" not in cases and "tokenizer update, alone" in cases
    assert [case for case in cases if case.startswith("generate,")] == ["generate, 16 steps (ntp all)"]


def test_the_warm_up_is_not_timed():
    runs = []
    assert len(time_runs(lambda: runs.append(1), 5, torch.device("cpu"))) == 5
    assert len(runs) == WARMUP + 5


def test_nothing_to_time_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="repeats 0: expected 1 or more"):
        benchmark(small_params(), 2, 0, tmp_path / "bench.json")
