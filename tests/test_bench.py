import socket
from itertools import islice
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT, small_params

from restok.config.load import ConfigError, load_params
from restok.data.codes import CodeStore, write_codes
from restok.data.loader import code_batches
from restok.files import read_json
from restok.files.outputs import require_writable
from restok.networks.pretrained import random_weights
from restok.objective.discriminator import FeatureDiscriminator
from restok.objective.perceptual import build_perceptual
from restok.stages.bench import codes, metrics, sampling, training
from restok.stages.bench.chain import benchmark
from restok.stages.bench.peaks import operations, share_of_peak
from restok.stages.bench.timing import WARMUP, time_runs
from restok.training.tokenizer import TokenizerJob


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


def test_sampling_is_timed_at_each_batch_with_guidance_and_without(tmp_path):
    params = small_params()
    rows = sampling.benchmark(params, 4, 1, tmp_path / "bench.json")
    assert read_json(tmp_path / "bench.json") == rows
    assert [(row["case"], row["steps"], row["guided"]) for row in rows] == [
        *((case, steps, guided) for steps in (6, 5, 16) for guided in (True, False) for case in ("generator", "both")),
        ("decoder", None, None)]
    assert all(row["batch_size"] in (1, 2, 4) and row["latency"] > 0 and row["dtype"] == "fp32" for row in rows)
    assert all(row["images_per_second"] == pytest.approx(row["batch_size"] / row["seconds"]) for row in rows)
    work = {(row["case"], row["steps"], row["guided"]): row["gigaflop_per_image"] for row in rows}
    assert work["both", 6, True] == pytest.approx(work["generator", 6, True] + work["decoder", None, None])
    assert work["generator", 6, True] == pytest.approx(2 * work["generator", 6, False])


def test_whole_batches_are_drawn_by_steps_of_their_own_size(monkeypatch):
    """On a GPU larger ones would serve, and be timed in their place."""
    (codes, images, *_) = sampling._parts(small_params(), 4, torch.device("cpu"))
    codes.run(4)()
    drawing = images.run.args[0]
    monkeypatch.setattr(drawing, "beside", None)
    for size in (1, 2):
        images.run(size)
        assert drawing.steps is None
        images.run(size)()
        assert drawing.steps[1].images == size


def test_a_batch_that_does_not_fit_is_the_last_that_is_tried(tmp_path, monkeypatch):
    whole = sampling.Drawing.steps_of

    def small(self, guidance, count):
        if count > 2:
            raise torch.OutOfMemoryError
        return whole(self, guidance, count)

    monkeypatch.setattr(sampling.Drawing, "steps_of", small)
    rows = sampling.benchmark(small_params(), 8, 1, tmp_path / "bench.json")
    assert max(row["batch_size"] for row in rows if row["case"] != "decoder") <= 2


@pytest.fixture
def uncompiled(monkeypatch):
    """The checks of annotations would be compiled, too."""
    monkeypatch.setattr(torch, "compile", lambda run, **settings: run)


def everything(tmp_path, **settings):
    params = small_params("objective.discriminator.start=0", "tokenizer_training.batch_size=8",
                          "generator_training.batch_size=8")
    return training.benchmark(params, 2, 1, tmp_path / "bench.json", **settings)


def test_all_is_timed_at_each_micro_batch_compiled_and_not(uncompiled, tmp_path):
    rows = everything(tmp_path)
    step = "tokenizer training step"
    assert [(row["case"], row["micro_batch"], row["compiled"]) for row in rows[:6]] == [
        ("image loading, one core, 500 x 375 JPEG", 64, None), (step, 4, False), (step, 8, False),
        (f"{step}, 0 workers", 8, False), (step, 8, True), (step, 4, True)]
    assert [row["case"] for row in rows[6:]] == ["generator training step"] * 4 + [
        "tokenizer forward", "tokenizer update, alone", "encode", "decode", "generate, 6 steps (ntp 4)",
        "generate, 16 steps (ntp all)", "code loading"]
    assert all(row["seconds"] > 0 and row["images_per_second"] == pytest.approx(row["micro_batch"] / row["seconds"])
               for row in rows)
    assert all(row["memory_gb"] > 0 and row["gigaflop_per_image"] > 0 for row in rows[1:-1])
    assert rows[3]["data_seconds"] > 0 and {row["mfu"] for row in rows} == {None}           # nobody knows a CPU's peak
    assert read_json(tmp_path / "bench.json") == rows
    text = (tmp_path / "bench.md").read_text()
    assert text.startswith(f"## {rows[0]['device']}, 20") and text.count("\n| ") == len(rows) + 1 and "Left out" not in text


def test_what_would_begin_too_late_is_left_out_and_said_so(tmp_path):
    (row,) = everything(tmp_path, within=0)
    assert row["case"].startswith("image loading")
    assert "Left out, for lack of time: what comes after image loading" in (tmp_path / "bench.md").read_text()


def test_all_may_be_timed_again_and_replaces_nothing_of_anybodys(command, tmp_path):
    out = tmp_path / "bench.json"
    everything(tmp_path, within=0)
    require_writable(out, folder=False, kinds=("benchmark",))
    for place in (tmp_path / "bench.md", tmp_path / "other.md"):
        done = command("bench", "--all", "--params", ROOT / "params/short.yaml", "--out", place)
        assert done.exit_code == 1 and not (tmp_path / "other.md").exists()
    with pytest.raises(ConfigError, match="the section's own place"):
        training.benchmark(small_params(), 2, 1, tmp_path / "other.md")


def test_a_micro_batch_that_does_not_fit_ends_the_row(uncompiled, tmp_path, monkeypatch):
    step = TokenizerJob.step

    def small(self, batch, number):
        if len(batch[0]) > 4:
            raise torch.OutOfMemoryError
        return step(self, batch, number)

    monkeypatch.setattr(TokenizerJob, "step", small)
    sizes = [row["micro_batch"] for row in everything(tmp_path) if row["case"].startswith("tokenizer training step")]
    assert sizes == [4, 4, 4]


def test_operations_and_their_share_of_the_peak():
    layer, x = torch.nn.Linear(8, 4, bias=False), torch.ones(3, 8)
    assert operations(lambda: layer(x)) == 2 * 3 * 8 * 4
    assert operations(lambda: layer(x).sum().backward()) == 2 * 2 * 3 * 8 * 4               # x takes no gradient
    assert share_of_peak(98.95e12, "bf16", "NVIDIA H200") == pytest.approx(0.1)
    assert share_of_peak(6.7e12, "fp32", "NVIDIA H200") == pytest.approx(0.1)
    assert share_of_peak(1e12, "tf32", "NVIDIA H200") is None and share_of_peak(1e12, "bf16", "CPU") is None


def test_networks_with_random_weights_have_the_right_shape_without_a_download(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", Mock(side_effect=AssertionError("network")))
    objective = load_params(ROOT / "params/imagenet256.yaml").objective
    with random_weights():
        judge = FeatureDiscriminator(objective.discriminator, None).backbone
        networks = build_perceptual(objective.perceptual_network, None), judge
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [14_716_160, 21_665_664]


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
        "accumulation", "Frechet distance", "precision and recall", "Inception", "8-bit images to statistics",
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


def test_codes_are_read_from_both_layouts_cold_and_warm(command, tmp_path):
    out = tmp_path / "new/bench.json"
    done = command("bench", "codes", "--samples", 40, "--batch-size", 16, "--repeats", 1, "--out", out)
    assert done.exit_code == 0, done.stderr
    rows = read_json(out)
    assert [row["case"] for row in rows] == ["from the disk", "from memory", "bytes on the disk"]
    for row in rows[:2]:
        assert row["samples_per_second"] == pytest.approx(32 / row["seconds"])
        assert row["ratio"] == pytest.approx(row["samples_per_second"] / row["peer_samples_per_second"])
    packed = 40 * (10 * 128 * 2 + 8) + 2 * 128                  # and a manifest
    assert rows[2]["peer_bytes"] == 40 * (10 * 128 * 8 + 8 + 2 * 128) and 0 < rows[2]["bytes"] - packed < 1000
    assert [path.name for path in out.parent.iterdir()] == ["bench.json"]


def test_both_layouts_give_the_same_batches(tmp_path):
    count, shape = 50, (codes.CROPS, codes.TOKENS, codes.CODEBOOK, codes.CLASSES)
    write_codes(tmp_path / "store", codes._codes(count), count, *shape, "random", "random")
    codes.write_files(tmp_path / "files", codes._codes(count))
    ways = code_batches(CodeStore(tmp_path / "store"), 16, 0), codes.file_batches(tmp_path / "files", count, 16, 0)
    for ours, theirs in zip(*(islice(way, 7) for way in ways), strict=True):         # beyond two epochs
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("words", "message"), [
    (("bench", "metrics", "--set", "seed=1"), "takes no parameters"),
    (("bench", "codes", "--params", ROOT / "params/demo.yaml"), "takes no parameters"),
    (("panel", "--data", "data", "--tokenizer", "tokenizer", "--set", "seed=1"), "name one with --params")])
def test_settings_that_would_change_nothing_are_refused(words, message, command, tmp_path):
    done = command(*words, "--out", tmp_path / "out")
    assert done.exit_code == 1 and message in " ".join(done.output.split())
