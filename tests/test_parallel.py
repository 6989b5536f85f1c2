"""What is trained does not depend on the number of processes: with the same micro-batches two equal one."""

import itertools
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import ROOT, SMALL, small_params
from test_distributed import together

from restok.config.load import ConfigError
from restok.data.codes import CodeStore
from restok.data.loader import batches, code_batches
from restok.data.table import open_split
from restok.distributed import own_share
from restok.files import read_json
from restok.parts import Shard
from restok.training.generator import GeneratorJob, train_generator
from restok.training.optim import Updater
from restok.training.parallel import micro_batches, require_division, step_generator
from restok.training.tokenizer import TokenizerJob

CPU, BATCH = torch.device("cpu"), 8
TRAINING = ("objective.discriminator.start=1", "objective.gan=0.1", "tokenizer.revive_after=3",
            f"tokenizer_training.batch_size={BATCH}", "tokenizer_training.optimizer.warmup_steps=2",
            f"generator_training.batch_size={BATCH}", "generator_training.optimizer.warmup_steps=2",
            "generator_training.log_every=1", "generator_training.save_every=2", "generator_training.steps=6")


def params(micro, **other):
    changed = {key.replace("__", "."): value for key, value in other.items()}
    named = dict(override.split("=", 1) for override in TRAINING) | changed
    return small_params(*(f"{key}={value}" for key, value in named.items()),
                        *(f"{part}_training.micro_batch={micro}" for part in ("tokenizer", "generator")))


def tokenizer_job(settings, digits, classifier, codes):
    source = batches(open_split(digits, "train"), settings.data, 16, BATCH, 1, share=own_share())
    return TokenizerJob(settings, classifier, CPU), source


def generator_job(settings, digits, classifier, codes):
    return GeneratorJob(settings, CPU), code_batches(CodeStore(codes), BATCH, 1, share=own_share())


def trained(make, settings, *inputs, steps):
    """Losses of every step and all that there is in the end, as numbers that go between processes."""
    job, source = make(settings, *inputs)
    losses = [{name: value.item() for name, value in job.step(next(source), step).items()} for step in range(steps)]
    return losses, {name: tensor.numpy() for name, tensor in flat(job.state_dict()).items()}


def flat(tree, name=""):
    if isinstance(tree, torch.Tensor):
        return {name: tree.clone()}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return {key: tensor for part, value in items for key, tensor in flat(value, f"{name}/{part}").items()}


@pytest.mark.parametrize("make", [tokenizer_job, generator_job])
@pytest.mark.parametrize(("micro", "steps"), [(4, 20), (2, 3)])
def test_two_processes_equal_one(make, micro, steps, digits, classifier, codes):
    """With the discriminator on, revival, dropped labels and dropout. Four micro-batches are added in another order than on one
    process, which rounds otherwise: a code that this changes changes what comes after, so a few steps are compared."""
    work = partial(trained, make, params(micro), digits, classifier, codes, steps=steps)
    one, one_state = work()
    (first, first_state), (second, second_state) = together(work)
    for step, (alone, a, b) in enumerate(zip(one, first, second, strict=True)):
        assert alone.keys() == a.keys()
        for name, value in alone.items():
            assert (a[name] + b[name]) / 2 == pytest.approx(value, rel=1e-6, abs=1e-6), (step, name)
    assert first_state.keys() == second_state.keys() == one_state.keys()
    for name, value in one_state.items():
        np.testing.assert_array_equal(first_state[name], second_state[name], name)
        if "optimizer" not in name:                                     # whose second moments are of any size
            # AdamW divides a gradient by its own size: one that is rounding alone moves its weight by up to the learning rate.
            away = ~np.isclose(first_state[name], value, rtol=1e-5, atol=1e-5)
            assert away.sum() <= max(1, away.size // 1000), name
            np.testing.assert_allclose(first_state[name], value, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("make", [tokenizer_job, generator_job])
def test_accumulation_equals_one_forward(make, digits, classifier, codes, monkeypatch):
    """In the gradients of each update, but for what is drawn for each micro-batch, dropout and augmentation, which are off; and
    so is the perceptual distance, whose ReLUs turn on what is rounded."""
    off = {"objective__discriminator__augment": "[]", "generator__token_dropout": 0.0, "generator__residual_dropout": 0.0,
           "generator__ffn_dropout": 0.0, "objective__discriminator__start": 0,
           "objective__perceptual": 0.0}
    gradients = []
    monkeypatch.setattr(Updater, "step", lambda self, step: gradients.append([p.grad.clone() for p in self.parameters]))
    whole, parts = (trained(make, params(micro, **off), digits, classifier, codes, steps=1)[0][0] for micro in ("null", 2))
    assert parts == pytest.approx(whole, rel=1e-5)
    updates = len(gradients) // 2
    assert updates == (2 if make is tokenizer_job else 1)
    for at_once, cut in zip(gradients[:updates], gradients[updates:], strict=True):
        largest = max(gradient.abs().max() for gradient in at_once)
        for one, other in zip(at_once, cut, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(largest))


def test_gradients_are_exchanged_once_an_update(digits, classifier, codes, monkeypatch):
    """However many micro-batches there are: one bucket for each of the two updates, and LeCam's averages."""
    def work(micro):
        job, source = tokenizer_job(params(micro, tokenizer__revive_after=0), digits, classifier, codes)
        for step in range(3):                                           # buckets are laid out anew after the first
            job.step(next(source), step + 2)
        with torch.profiler.profile() as profile:
            job.step(next(source), 5)
        counted = [event.count for event in profile.key_averages() if "all_reduce" in event.key or "allreduce" in event.key]
        return max(counted)

    few, many = (together(partial(work, micro)) for micro in (4, 1))
    assert few == many == [few[0]] * 2 and 2 <= few[0] <= 6


def test_a_run_of_one_process_goes_on_in_two(codes, tmp_path, monkeypatch):
    """It sees the same batches, and the first process alone writes."""
    settings = params(4)
    run = partial(train_generator, settings, codes, codes.parent)
    run(tmp_path / "whole/run", tmp_path / "whole/out")
    step = GeneratorJob.step

    def interrupted(self, batch, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, batch, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GeneratorJob, "step", interrupted)
        run(tmp_path / "run", tmp_path / "out")
    assert together(partial(run, tmp_path / "run", tmp_path / "out")) == [None, None]
    whole, resumed = ([[*line] for line in lines(tmp_path / name)] for name in ("whole/out", "out"))
    assert [row[0] for row in whole] == [row[0] for row in resumed] == list(range(1, 7))
    np.testing.assert_allclose([row[1] for row in resumed], [row[1] for row in whole], rtol=1e-6)


def lines(out):
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [(row["step"], row["cross_entropy"]) for row in rows]


def test_torchrun_trains_as_the_tasks_of_slurm_do(codes, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", "--"]
    settings = [word for override in (*SMALL, *TRAINING, "generator_training.micro_batch=4") for word in ("--set", override)]
    command = [Path(sys.executable).with_name("restok"), "train-generator", "--params", ROOT / "params/demo.yaml", *settings,
               "--codes", codes, "--tokenizer", codes.parent, "--run", tmp_path / "run", "--out", tmp_path / "out"]
    done = subprocess.run([*torchrun, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = read_json(tmp_path / "out/metrics.json")
    assert (facts["processes"], facts["batch_size"], facts["micro_batch"], facts["step"]) == (2, BATCH, 4, 6)
    train_generator(params(4), codes, codes.parent, tmp_path / "one/run", tmp_path / "one/out")
    assert read_json(tmp_path / "one/out/metrics.json")["last"]["cross_entropy"] == pytest.approx(
        facts["last"]["cross_entropy"], rel=1e-6)


def test_an_error_of_the_first_process_stops_all(codes, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    for error in together(partial(train_generator, params(4), codes, codes.parent, tmp_path / "run", tmp_path / "out")):
        assert "holds thesis.tex, which writing generator there would delete" in str(error)


# Who has what

@pytest.mark.parametrize(("batch", "micro", "processes", "message"), [
    (256, 32, 3, "no whole number of micro-batches of 32 on 3 processes; take a multiple of 3 for x.batch_size"),
    (256, None, 2, "micro-batches of 256 on 2 processes; take 64 or 128 or 32 for x.micro_batch"),
    (48, 10, 2, "micro-batches of 10 on 2 processes; take 6 or 8 or 12 for x.micro_batch"),
    (48, 10, 1, "micro-batches of 10 on 1 process; take 8 or 12 or 6 for x.micro_batch")])
def test_what_does_not_divide_is_refused_with_what_does(batch, micro, processes, message):
    training = small_params().tokenizer_training.model_copy(update={"batch_size": batch, "micro_batch": micro})
    with pytest.raises(ConfigError) as error:
        require_division("x", training, processes)
    words, sizes = message.partition("; take ")[::2]
    assert words in str(error.value)
    assert sorted(sizes.split()) == sorted(str(error.value).partition("; take ")[2].partition(", or")[0].split())


def test_shares_of_a_batch_are_the_batch(digits):
    split, data = open_split(digits, "train"), small_params().data
    whole = batches(split, data, 16, 8, seed=1, start_step=3)
    shares = [batches(split, data, 16, 8, seed=1, start_step=3, share=Shard(part, 4)) for part in range(4)]
    for _ in range(2):
        images, labels = next(whole)
        parts = [next(share) for share in shares]
        assert torch.equal(images, torch.cat([part[0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[1] for part in parts]))


def test_micro_batches_are_numbered_over_all_processes():
    def work():
        return [(number, part.tolist()) for number, part in micro_batches(2, torch.arange(4) + 4 * own_share().part)]

    assert list(itertools.chain(*together(work))) == [(0, [0, 1]), (1, [2, 3]), (2, [4, 5]), (3, [6, 7])]


def test_each_micro_batch_has_its_own_randomness():
    draws = {float(torch.rand((), generator=step_generator(seed, step, micro))) for seed in (1, 2) for step in (3, 4)
             for micro in range(4)}
    assert len(draws) == 16
    assert step_generator(1, 2, 3).initial_seed() == step_generator(1, 2, 3).initial_seed()
    assert not dist.is_initialized()
