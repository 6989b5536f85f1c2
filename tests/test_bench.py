import pytest
import torch
from conftest import small_params

from restok.config.load import ConfigError
from restok.files import read_json
from restok.stages.bench import metrics
from restok.stages.bench.chain import benchmark
from restok.stages.bench.timing import WARMUP, time_runs


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
    assert len(time_runs(lambda: runs.append(1), 5)) == 5
    assert len(runs) == WARMUP + 5


def test_nothing_to_time_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="repeats 0: expected 1 or more"):
        benchmark(small_params(), 2, 0, tmp_path / "bench.json")


def test_the_metrics_are_timed_beside_the_fields_way(tmp_path):
    rows = metrics.benchmark(metrics.Sizes(samples=40, dims=16, images=2, side=16, batch_size=2), 1, tmp_path / "bench.json")
    assert [row["case"] for row in rows] == [
        "accumulation", "Frechet distance", "precision and recall", "Inception, channels_last", "8-bit images to statistics",
        "precision and recall, memory"]
    for row in rows[:-1]:
        assert row["ratio"] == pytest.approx(row["images_per_second"] / row["peer_images_per_second"])
    assert rows[-1]["bytes"] > 0 and read_json(tmp_path / "bench.json") == rows
    with pytest.raises(ConfigError, match="samples 0: expected 1 or more"):
        metrics.benchmark(metrics.Sizes(0, 16, 2, 16, 2), 1, tmp_path / "bench.json")


def test_both_sides_of_a_pair_find_the_same():
    """A race between two different results would mean nothing."""
    features, others = (metrics._features(64, 12, seed) for seed in (0, 1))
    solver = metrics._solver(features, others)
    distance, root_trace = solver.run(), solver.peer()
    a, b = (x.double().T.cov().trace() for x in (features, others))
    shift = (features.double().mean(0) - others.double().mean(0)).square().sum()
    assert distance == pytest.approx((shift + a + b - 2 * root_trace).item(), rel=1e-6)
    race = next(pair for pair in metrics._pairs(metrics.Sizes(40, 12, 2, 16, 2), torch.device("cpu")) if "recall" in pair.name)
    assert race.run() == pytest.approx(race.peer())
