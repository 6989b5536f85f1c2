"""How a step is computed changes nothing but the last digits, and no name of a weight."""

import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT, small_params

from restok.config.load import canonical_json
from restok.distributed import device
from restok.generator.model import HAR
from restok.nn import masks, rope
from restok.training.compute import arrange, float32_products
from restok.training.generator import GeneratorJob
from restok.training.tokenizer import TokenizerJob

CPU, COMPILER = torch.device("cpu"), shutil.which(os.environ.get("CXX", "g++"))
TINY = ("tokenizer.encoder_layers=2", "tokenizer.decoder_layers=1", "tokenizer.scales=2", "generator.layers=1",
        "objective.discriminator.start=0", *(f"{part}_training.{key}=4" for part in ("tokenizer", "generator")
                                             for key in ("batch_size", "optimizer.warmup_steps")))
# Three steps in a process of its own, without the checks of annotations, which would be compiled, too.
TRAIN = """
import sys, torch
from pathlib import Path
from restok.config.load import load_params
from restok.distributed import own_share, processes
from restok.training.generator import GeneratorJob
from restok.training.tokenizer import TokenizerJob
kind, backend, classifier, out = sys.argv[1:]
torch.set_num_threads(1)
params, on, compile = load_params(f"{out}/params.yaml"), torch.device("cpu"), torch.compile
calls = []
other = {} if backend == "inductor" else {"options": None, "backend": backend}        # the other backends have no options
torch.compile = lambda run, **settings: calls.append(run) or compile(run, **settings | other)
with processes():
    torch.manual_seed(0)
    images, codes, labels = (part[slice(*own_share().bounds(4))] for part in (
        torch.rand(4, 3, 16, 16), torch.randint(64, (4, 16)), torch.arange(4)))
    tokenizer = kind == "tokenizer"
    job = TokenizerJob(params, Path(classifier), on) if tokenizer else GeneratorJob(params, on)
    for step in range(3):
        job.step((images if tokenizer else codes, labels), step)
    torch.save({"state": job.state_dict(), "compiled": len(calls) > 0}, f"{out}/{own_share().part}")
"""
LIMIT = """
import torch
from restok.config.load import load_params
from restok.nn.blocks import Block
from restok.training import compute
compile, compute.VARIANTS = torch.compile, 2
torch.compile = lambda run, **settings: compile(run, **settings | {"options": None}, backend="eager")
block = Block(8, 2)
compute.arrange(block, load_params("params/demo.yaml", ["tokenizer_training.compile=true"]).tokenizer_training)
for tokens in (1, 2, 3):
    print(tokens, block.transform(torch.zeros(1, tokens, 8)).shape[1], flush=True)
"""


def start(script, *words, **environment):
    return subprocess.Popen([sys.executable, "-c", script, *map(str, words)], cwd=ROOT, text=True,
                            env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def trained(classifier, tmp_path):
    """The states that so many processes have after three steps, as tensors by name."""
    def work(kind, *overrides, backend="eager", count=1):
        with socket.create_server(("localhost", 0)) as server:
            port = server.getsockname()[1]
        (tmp_path / "params.yaml").write_text(small_params(*TINY, *overrides).model_dump_json())
        group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        processes = [start(TRAIN, kind, backend, classifier, tmp_path, **group, RANK=str(rank), LOCAL_RANK=str(rank))
                     for rank in range(count)]
        for process in processes:
            _, errors = process.communicate()
            assert process.returncode == 0, errors[-3000:]
        found = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(count)]
        assert all(each["compiled"] == any("compile=true" in override for override in overrides) for each in found)
        return [dict(flat(each["state"])) for each in found]

    return work


def flat(tree, name=""):
    if isinstance(tree, torch.Tensor):
        yield name, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        yield from flat(value, f"{name}/{key}")


def assert_same(one, other, rtol):
    """Same names, and values to rounding; the second moments of a gradient of nothing but rounding are of any size."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not rtol:
            assert torch.equal(value, other[name]), name
        elif "optimizer" not in name:
            torch.testing.assert_close(other[name], value, rtol=rtol, atol=rtol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_blocks_compiled_in_two_processes_compute_what_one_does(kind, trained):
    """With the discriminator and dropout. Weights, average and optimisers keep their names."""
    micro = f"{kind}_training.micro_batch=2"
    (plain,) = trained(kind, micro)
    for one in trained(kind, micro, f"{kind}_training.compile=true", f"{kind}_training.checkpointing=true", count=2):
        assert_same(plain, one, rtol=1e-5)


@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_what_is_computed_anew_is_the_same_to_the_bit(kind, trained):
    (plain,), (anew,) = trained(kind), trained(kind, f"{kind}_training.checkpointing=true")
    assert_same(plain, anew, rtol=0)


def test_what_is_computed_anew_is_not_kept():
    """Of a block, what goes in, and nothing of the four times wider layer."""
    def kept(*overrides):
        model, sizes = HAR(small_params().generator), []
        arrange(model, small_params(*overrides).generator_training)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            model(torch.zeros(2, 16, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
        return sum(sizes)

    assert kept("generator_training.checkpointing=true") < 0.5 * kept()


def test_a_run_goes_on_with_what_changes_no_result():
    identities = {canonical_json(small_params(f"generator_training.checkpointing={value}"), "generator_training")
                  for value in ("true", "false")}
    assert len(identities) == 1


@pytest.mark.skipif(not COMPILER, reason="torch's compiler takes a C++ compiler")
def test_what_torchs_own_compiler_makes_of_a_block_draws_the_same_dropout(trained):
    (plain,), (compiled,) = trained("generator"), trained("generator", "generator_training.compile=true", backend="inductor")
    assert_same(plain, compiled, rtol=1e-5)


def test_one_shape_too_many_is_an_error_and_not_slow():
    process = start(LIMIT)
    output, errors = process.communicate()
    assert output.split() == ["1", "1", "2", "2"] and "FailOnRecompileLimitHit" in errors


@pytest.fixture
def meta(monkeypatch):
    """The device without values: what asks for one raises."""
    none = torch.autocast("cpu", enabled=False)                        # neither it nor the fused update knows this device
    monkeypatch.setattr(torch, "autocast", lambda *words, **settings: none)
    monkeypatch.setattr("restok.training.optim.AdamW", lambda groups, fused, **settings: torch.optim.AdamW(groups, **settings))
    return torch.device("meta")


def test_no_step_asks_the_device_for_a_value(classifier, meta):
    """It would wait for all that the device has yet to do. The revival of codes does, which the paper does without."""
    params = small_params("objective.discriminator.start=0", "tokenizer.revive_after=0")
    tokenizer, generator = TokenizerJob(params, classifier, meta), GeneratorJob(params, meta)
    for step in range(2):
        losses = tokenizer.step((torch.rand(4, 3, 16, 16), None), step + 1)
        losses |= generator.step((torch.zeros(4, 16, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)), step)
        assert {"discriminator", "cross_entropy"} <= losses.keys()
        assert {loss.device.type for loss in losses.values()} == {"meta"}


def test_a_step_that_asks_for_a_value_is_noticed(classifier, meta):
    job = TokenizerJob(small_params("objective.discriminator.start=0", "tokenizer.revive_after=1"), classifier, meta)
    with pytest.raises((NotImplementedError, RuntimeError)):
        job.step((torch.rand(4, 3, 16, 16), None), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_no_step_waits_for_a_gpu(classifier, precision):
    params, on = small_params("objective.discriminator.start=0", "tokenizer.revive_after=0",
                              *(f"{part}_training.precision={precision}" for part in ("tokenizer", "generator"))), device()
    steps = [partial(TokenizerJob(params, classifier, on).step, (torch.rand(4, 3, 16, 16), None)),
             partial(GeneratorJob(params, on).step, (torch.zeros(4, 16, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)))]
    for step in steps:
        step(1)                                         # tables are made, once
        torch.cuda.set_sync_debug_mode("error")
        try:
            losses = step(2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert losses and all(loss.is_cuda and loss.isfinite() for loss in losses.values())


def test_no_table_is_made_in_a_step(classifier, monkeypatch):
    """But for what a batch draws: masks, rotations and numbers of levels are made once for a device."""
    params = small_params("objective.discriminator.start=0", "tokenizer.revive_after=0")
    tokenizer, generator = TokenizerJob(params, classifier, CPU), GeneratorJob(params, CPU)
    steps = [partial(tokenizer.step, (torch.rand(4, 3, 16, 16), None)),
             partial(generator.step, (torch.zeros(4, 16, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)))]
    for step in steps:
        step(1)
    for module, name in ((masks, "block_causal"), (masks, "group_of_each"), (rope, "rotation")):
        monkeypatch.setattr(module, name, Mock(side_effect=AssertionError(name)))
    for step in steps:
        assert all(loss.isfinite() for loss in step(2).values())


def test_channels_last_changes_the_layout_and_nothing_else(classifier):
    states, layouts = [], []
    for value in ("false", "true"):
        params = small_params("objective.discriminator.start=0", f"tokenizer_training.channels_last={value}")
        job = TokenizerJob(params, classifier, CPU)
        job.tokenizer.cnn_encoder.conv_out.register_forward_hook(
            lambda _, images, made: layouts.append(made.is_contiguous(memory_format=torch.channels_last)))
        torch.manual_seed(0)
        job.step((torch.rand(4, 3, 16, 16), None), 1)
        states.append(dict(flat(job.state_dict())))
    assert layouts == [False, True]
    assert_same(*states, rtol=1e-4)
    assert all(value.is_contiguous() for value in states[1].values())


def test_the_precision_of_float32_products_is_set_for_a_while(monkeypatch):
    def now():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with float32_products(tf32=True):                   # nothing without a GPU: some CPUs would round as well
        assert now() == before or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for tf32, precision in ((True, "high"), (False, "highest")):
        with float32_products(tf32):
            assert now() == (precision, tf32)
        assert now() == before


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 2e-2), ("fp16", 3e-3)])
def test_half_precision_changes_the_losses_by_its_rounding(precision, digits, classifier):
    losses = []
    for each in ("fp32", precision):
        params = small_params("objective.discriminator.start=0", "generator.token_dropout=0.0", "generator.ffn_dropout=0.0",
                              "generator.residual_dropout=0.0",
                              *(f"{part}_training.precision={each}" for part in ("tokenizer", "generator")))
        torch.manual_seed(0)
        batches = (torch.rand(4, 3, 16, 16), None), (torch.arange(64).reshape(4, 16), torch.arange(4))
        jobs = TokenizerJob(params, classifier, CPU), GeneratorJob(params, CPU)
        losses.append({name: value.item() for job, batch in zip(jobs, batches, strict=True)
                       for name, value in job.step(batch, 1).items()})
    assert losses[1] == pytest.approx(losses[0], rel=digits, abs=digits) and losses[0] != losses[1]
