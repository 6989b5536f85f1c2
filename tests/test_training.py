import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from itertools import pairwise
from math import nan
from random import Random
from unittest.mock import Mock

import pytest
import timm
import torch
from conftest import ROOT, small_params
from kill_training import killed
from safetensors.torch import save_file

from restok.config import Optimizer
from restok.config.load import ConfigError
from restok.data import loader
from restok.data.codes import CodesError
from restok.data.reading import DataError
from restok.files import FileError, noted, sha256_file
from restok.networks.saved import WeightsError
from restok.training.classifier import train_classifier
from restok.training.generator import GeneratorJob, train_generator
from restok.training.log import log_file
from restok.training.loop import LossError, sizes
from restok.training.optim import AdamW, average_decay, learning_rate, parameter_groups
from restok.training.state import RunFolder, StateError, load_state, save_state
from restok.training.tokenizer import TokenizerJob, train_tokenizer
from restok.weights import load_generator, load_tokenizer, save_model

CPU = torch.device("cpu")
SCHEDULE = Optimizer(learning_rate=1.0, final_learning_rate=0.1, warmup_steps=4, betas=(0.9, 0.95), weight_decay=0.1)


def training_params(*overrides):
    """Small, with the adversary active and entries revived from the first steps on; saved every 2 steps."""
    return small_params("objective.discriminator.start=0", "objective.gan=0.1", "tokenizer.revive_after=2",
                        "tokenizer_training.batch_size=4", "tokenizer_training.checkpoints={first: 4, second: 8}",
                        "tokenizer_training.save_every=2", "tokenizer_training.log_every=1", "tokenizer_training.ema=0.9",
                        "tokenizer_training.optimizer.warmup_steps=2", "generator_training.batch_size=4",
                        "generator_training.steps=8", "generator_training.save_every=2", "generator_training.log_every=1",
                        "generator_training.ema=0.9", "generator_training.optimizer.warmup_steps=2", *overrides)


def flat(state, name=""):
    """Every leaf of a nested state by its path."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{name}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, value in enumerate(state) for k, v in flat(value, f"{name}/{i}").items()}
    return {name: state}


def differences(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    return [key for key in a if not (torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key])]


def interrupt(monkeypatch, job, at):
    """Kill the run in step `at`; returns what undoes it."""
    step = job.step

    def killed(self, batch, number):
        if number == at:
            raise KeyboardInterrupt
        return step(self, batch, number)

    monkeypatch.setattr(job, "step", killed)
    return lambda: monkeypatch.setattr(job, "step", step)


# The learning rate, the groups, the averages.

def test_the_learning_rate_climbs_falls_and_stays():
    rate = [learning_rate(step, SCHEDULE, 14) for step in range(30)]
    assert rate[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])                 # linear, up to the end of the warm-up
    assert rate[9] == pytest.approx(0.55)                                         # half of the cosine
    assert rate[14:] == [pytest.approx(0.1)] * 16                                 # the release's climbs again
    assert all(a > b for a, b in pairwise(rate[4:15]))


def test_without_warm_up_the_first_step_has_the_whole_rate():
    assert learning_rate(0, SCHEDULE.model_copy(update={"warmup_steps": 0}), 10) == 1.0


def test_updates_and_their_state_are_torchs_own():
    images, models, states = torch.rand(4, 8), [torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)], []
    models[1].load_state_dict(models[0].state_dict())
    for model, kind in zip(models, [AdamW, torch.optim.AdamW], strict=True):
        optimizer = kind(model.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        states.append(optimizer.state_dict() | model.state_dict())
    assert states[0]["state"][0]["step"] == 3 and differences(*states) == []


@pytest.mark.parametrize("model", ["tokenizer", "generator"])
def test_only_matrices_decay(model, classifier):
    params = training_params()
    module = GeneratorJob(params, CPU).generator if model == "generator" else TokenizerJob(params, classifier, CPU).tokenizer
    decayed, plain = parameter_groups([module], 0.05)
    names = {id(p): name for name, p in module.named_parameters()}
    found = [sorted(names[id(p)] for p in group["params"]) for group in (decayed, plain)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert sorted(found[0] + found[1]) == sorted(names.values())                  # each once
    assert all(p.ndim >= 2 for p in decayed["params"]) and all(name.endswith("weight") for name in found[0])
    assert not any(word in name for name in found[0] for word in ("norm", "embedding", "codebook", "token"))
    assert all(p.ndim == 1 or any(word in names[id(p)] for word in ("embedding", "codebook", "token")) for p in plain["params"])


def test_the_average_starts_as_a_copy_and_then_follows_slowly(codes):
    job = GeneratorJob(training_params(), CPU)
    batch, seen = (torch.arange(64).reshape(4, 16), torch.arange(4)), []
    for step in range(3):
        job.step(batch, step)
        seen.append(job.generator.head.weight.detach().clone())
    expected = 0.9 * (0.9 * seen[0] + 0.1 * seen[1]) + 0.1 * seen[2]
    assert torch.allclose(job.average.module.head.weight, expected, atol=1e-7)
    assert not torch.allclose(seen[2], expected, atol=1e-5)


def test_the_releases_ramp_holds_the_average_near_the_weights_at_first():
    assert [average_decay(t, 0.9, ramp=True) for t in (0, 1, 2, 79, 80, 1000)] == [0, 2 / 11, 3 / 12, 80 / 89, 0.9, 0.9]
    assert [average_decay(t, 0.9, ramp=False) for t in (0, 1, 1000)] == [0, 0.9, 0.9]
    assert average_decay(89_989, 0.9999, ramp=True) < 0.9999 == average_decay(89_991, 0.9999, ramp=True)


def test_the_average_follows_the_ramp(codes):
    job = GeneratorJob(training_params("generator_training.ema_ramp=true"), CPU)
    batch, seen = (torch.arange(64).reshape(4, 16), torch.arange(4)), []
    for step in range(3):
        job.step(batch, step)
        seen.append(job.generator.head.weight.detach().clone())
    expected = 3 / 12 * (2 / 11 * seen[0] + 9 / 11 * seen[1]) + 9 / 12 * seen[2]
    assert torch.allclose(job.average.module.head.weight, expected, atol=1e-7)


# Resuming: k steps, saved, loaded by a new process, and n - k steps are n steps.

def tokenizer_job(params, classifier):
    return TokenizerJob(params, classifier, CPU)


def generator_job(params, classifier):
    return GeneratorJob(params, CPU)


def tokenizer_batch(step):
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step)), None


def generator_batch(step):
    rng = torch.Generator().manual_seed(step)
    return torch.randint(64, (4, 16), generator=rng), torch.randint(10, (4,), generator=rng)


@pytest.mark.parametrize(("make", "batch", "overrides"), [
    (tokenizer_job, tokenizer_batch, []), (tokenizer_job, tokenizer_batch, ["tokenizer_training.precision=bf16"]),
    (tokenizer_job, tokenizer_batch, ["objective.discriminator.start=2"]),
    (generator_job, generator_batch, []), (generator_job, generator_batch, ["generator.ntp=all"])])
def test_resuming_is_exact_to_the_bit(make, batch, overrides, classifier, tmp_path):
    """Parameters, averages, optimisers, scaler, idle counts, and the discriminator with its own averages."""
    params = training_params(*overrides)
    whole, first = make(params, classifier), make(params, classifier)
    start = {key: value.clone() for key, value in flat(whole.state_dict()).items() if isinstance(value, torch.Tensor)}
    for step in range(5):
        whole.step(batch(step), step)
    for step in range(2):
        first.step(batch(step), step)
    save_state(tmp_path / "state.pt", first.state_dict())
    torch.rand(17)                                                                # another process has another global state
    second = make(params, classifier)
    second.load_state_dict(load_state(tmp_path / "state.pt"))
    for step in range(2, 5):
        second.step(batch(step), step)
    assert differences(whole.state_dict(), second.state_dict()) == []
    after = flat(whole.state_dict())
    assert sum(not torch.equal(after[key], value) for key, value in start.items()) > len(start) / 2   # it did train


def test_adversary_and_revival_are_in_the_state_and_move(classifier):
    job = TokenizerJob(training_params(), classifier, CPU)
    before = {key: value.clone() for key, value in flat(job.state_dict()).items() if isinstance(value, torch.Tensor)}
    terms = job.step(tokenizer_batch(0), 0)
    assert {"mse", "perceptual", "codebook", "commitment", "vf_encoder", "vf_decoder", "gan", "discriminator"} == terms.keys()
    moved = {key.split("/")[1] for key, value in before.items() if not torch.equal(flat(job.state_dict())[key], value)}
    assert moved >= {"tokenizer", "alignment", "average", "revival", "adversary"}
    assert job.state_dict()["adversary"]["lecam"]["real"] != 0


def train(what, params, data, classifier, codes, folder, checkpoint="first", previous=None):
    if what == "tokenizer":
        train_tokenizer(params, checkpoint, data, classifier, previous, folder / "run", folder / "out")
    else:
        train_generator(params, codes, codes.parent, folder / "run", folder / "out")
    return folder / "out"


OF_THE_MACHINE = {"time", "steps_per_second", "images_per_second", "data_seconds", "memory_gb"}      # times and memory


def test_a_killed_training_says_how_far_it_was_of_its_checkpoints_steps(digits, classifier, codes, tmp_path, monkeypatch):
    """What it did before an earlier kill counts as done; the steps of the checkpoint before are none of its own."""
    monkeypatch.setattr(noted, "EVERY", 0.001)
    params, said = training_params(), []
    first = train("tokenizer", params, digits, classifier, codes, tmp_path / "first")
    for step in (7, 6):                                # a state is kept after every second one
        undo = interrupt(monkeypatch, TokenizerJob, at=step)
        with pytest.raises(KeyboardInterrupt):
            train("tokenizer", params, digits, classifier, codes, tmp_path / "second", "second", first)
        undo()
        (note,) = (tmp_path / "second/run").glob("*/progress.json")
        said.append(json.loads(note.read_text()))
    steps = params.tokenizer_training.checkpoints
    assert {note["total"] for note in said} == {steps["second"] - steps["first"]}
    assert [(note["done"], note["unit"], note["error"]) for note in said] == [
        (3, "steps", "KeyboardInterrupt"), (2, "steps", "KeyboardInterrupt")]
    train("tokenizer", params, digits, classifier, codes, tmp_path / "second", "second", first)
    assert not list((tmp_path / "second/run").rglob("*progress*"))


def logged(out):
    """What its rows say of the training."""
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in OF_THE_MACHINE} for row in rows]


def states(folder):
    """The states of a run folder, whatever settings they are of, by step."""
    return sorted((folder / "run").glob("*/state_*.pt"), key=lambda path: path.name)


def test_the_weights_of_a_pretrained_teacher_are_an_input_of_the_tokenizer(digits, classifier, codes, tmp_path):
    weights = tmp_path / "vit.safetensors"
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_vit.r160_in1k").state_dict(), weights)
        params = training_params("objective.alignment.network=test_vit.r160_in1k", f"objective.alignment.weights={weights}",
                                 "tokenizer_training.checkpoints={first: 1}")
        out = train("tokenizer", params, digits, classifier, codes, tmp_path)
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["inputs"]["objective.alignment"] == sha256_file(weights)          # other weights: it was trained again
        assert manifest["paths"]["objective.alignment"] == weights.as_posix()
        assert "objective.discriminator" not in manifest["inputs"]                          # the demo's own classifier


@pytest.mark.parametrize(("what", "job", "steps"), [("tokenizer", TokenizerJob, 4), ("generator", GeneratorJob, 8)])
def test_a_killed_run_ends_as_if_it_had_not_been(what, job, steps, digits, classifier, codes, tmp_path, monkeypatch):
    params = training_params()
    whole = train(what, params, digits, classifier, codes, tmp_path / "whole")
    undo = interrupt(monkeypatch, job, at=3)
    with pytest.raises(KeyboardInterrupt):
        train(what, params, digits, classifier, codes, tmp_path / "killed")
    undo()
    assert not (tmp_path / "killed/out").exists() and [p.name for p in states(tmp_path / "killed")] == ["state_2.pt"]
    interrupt(monkeypatch, job, at=1)                                             # steps before the state are not run again
    killed = train(what, params, digits, classifier, codes, tmp_path / "killed")
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    assert logged(whole) == logged(killed) and [row["step"] for row in logged(killed)] == list(range(1, steps + 1))
    assert states(tmp_path / "killed") == []                                      # complete: nothing to resume
    load = load_tokenizer if what == "tokenizer" else load_generator
    assert load(killed).config == getattr(params, what)


def test_stopping_at_a_checkpoint_changes_nothing_after_it(digits, classifier, codes, tmp_path):
    train("tokenizer", training_params(), digits, classifier, codes, tmp_path / "1")
    stopped = train("tokenizer", training_params(), digits, classifier, codes, tmp_path / "2", "second", tmp_path / "1/out")
    at_once = training_params("tokenizer_training.checkpoints={only: 8}")
    straight = train("tokenizer", at_once, digits, classifier, codes, tmp_path / "3", "only")
    assert differences(load_state(stopped / "state.pt"), load_state(straight / "state.pt")) == []
    assert [row["step"] for row in logged(stopped)] == [5, 6, 7, 8]


def test_ten_kills_at_random_moments_change_nothing(digits, classifier, codes, tmp_path):
    """SIGKILL, to a process that starts, trains, saves or finishes. `tests/kill_training.py` does more of them."""
    params = training_params("tokenizer_training.checkpoints={first: 30}", "tokenizer_training.save_every=3")

    def work(folder):
        train("tokenizer", params, digits, classifier, codes, folder)

    work(tmp_path / "whole")
    ends = killed(work, tmp_path / "killed", 10, 1.0, Random(0))
    assert len({sha256_file(folder / "out/model.safetensors") for folder in (tmp_path / "whole", *ends)}) == 1
    whole = load_state(tmp_path / "whole/out/state.pt")
    assert all(differences(whole, load_state(folder / "out/state.pt")) == [] for folder in ends)
    assert all(logged(folder / "out") == logged(tmp_path / "whole/out") for folder in ends)
    assert [path for folder in ends for path in folder.rglob(".*") if "partial" in path.name or "owner" in path.name] == []


@pytest.mark.parametrize("name", ["state_new.pt", "state_6 (copy).pt"])
def test_a_file_among_the_states_that_is_none_is_left_alone(killed_in_step_7, codes, caplog, name):
    stray = states(killed_in_step_7)[-1].with_name(name)
    stray.touch()
    with caplog.at_level("INFO", "restok"):
        train("generator", training_params(), None, None, codes, killed_in_step_7)
    assert "state_6.pt: resuming after step 6" in caplog.text and stray.exists()


@pytest.fixture
def killed_in_step_7(codes, tmp_path, monkeypatch):
    """A generator's run folder with the states of steps 4 and 6."""
    undo = interrupt(monkeypatch, GeneratorJob, at=7)
    with pytest.raises(KeyboardInterrupt):
        train("generator", training_params(), None, None, codes, tmp_path)
    undo()
    return tmp_path


def test_the_last_two_states_are_kept(killed_in_step_7):
    assert [path.name for path in states(killed_in_step_7)] == ["state_4.pt", "state_6.pt"]


def test_a_state_cut_short_is_named_and_the_older_one_used(killed_in_step_7, codes, caplog):
    newest = states(killed_in_step_7)[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    with caplog.at_level("INFO", "restok"):
        resumed = train("generator", training_params(), None, None, codes, killed_in_step_7)
    assert f"{newest}: damaged or cut short" in caplog.text and "state_4.pt: resuming after step 4" in caplog.text
    whole = train("generator", training_params(), None, None, codes, killed_in_step_7 / "whole")
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()


def test_states_of_other_settings_are_neither_deleted_nor_in_the_way(killed_in_step_7, codes, monkeypatch):
    """Killed in step 7, run with other settings and killed in step 3: both can go on."""
    undo = interrupt(monkeypatch, GeneratorJob, at=3)
    with pytest.raises(KeyboardInterrupt):
        train("generator", training_params("generator_training.clip=0.5"), None, None, codes, killed_in_step_7)
    undo()
    assert [path.name for path in states(killed_in_step_7)] == ["state_2.pt", "state_4.pt", "state_6.pt"]


def test_a_state_of_other_settings_is_not_used(killed_in_step_7, codes, caplog):
    other = training_params("generator_training.clip=0.5")
    with caplog.at_level("INFO", "restok"):
        resumed = train("generator", other, None, None, codes, killed_in_step_7)
    assert "of a run with other settings" in caplog.text and "resuming" not in caplog.text
    whole = train("generator", other, None, None, codes, killed_in_step_7 / "whole")
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert logged(resumed) == logged(whole)


# What is finished stays.

@pytest.fixture
def untrainable(monkeypatch):
    """Call it, and no generator is trained from there on."""
    def refuse(self, params, on):
        raise AssertionError("was trained again")

    return lambda: monkeypatch.setattr(GeneratorJob, "__init__", refuse)


@pytest.mark.parametrize("lost", ["publish", "out"])
def test_what_is_finished_is_not_trained_again(lost, codes, tmp_path, monkeypatch, untrainable, caplog):
    """Killed before its output appears; or the workflow deletes that, because it was killed before it recorded success."""
    if lost == "publish":
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("restok.files.run.publish", Mock(side_effect=KeyboardInterrupt))
            train("generator", training_params(), None, None, codes, tmp_path)
        assert not (tmp_path / "out").exists()
        digest = sha256_file(next((tmp_path / "run").glob("*/finished/model.safetensors")))
    else:
        digest = sha256_file(train("generator", training_params(), None, None, codes, tmp_path) / "model.safetensors")
        shutil.rmtree(tmp_path / "out")
    untrainable()
    with caplog.at_level("INFO", "restok"):
        again = train("generator", training_params(), None, None, codes, tmp_path)
    assert sha256_file(again / "model.safetensors") == digest and "was finished before; taken from" in caplog.text
    assert (again / "model.safetensors").stat().st_nlink == 2                     # the disk holds it once
    assert states(tmp_path) == []


def test_an_output_that_stands_is_left_as_it_is(codes, tmp_path, untrainable, caplog):
    """Also where it was copied without its times, and without the folder of the run."""
    train("generator", training_params(), None, None, codes, tmp_path)
    shutil.copytree(tmp_path / "out", tmp_path / "copy/out", copy_function=shutil.copyfile)
    (tmp_path / "copy/out/.snakemake_timestamp").touch()
    untrainable()
    with caplog.at_level("INFO", "restok"):
        train("generator", training_params(), None, None, codes, tmp_path / "copy")
    assert "copy/out: stands already" in caplog.text and not (tmp_path / "copy/run").exists()


def test_an_output_that_was_altered_is_made_again(codes, tmp_path):
    out = train("generator", training_params(), None, None, codes, tmp_path)
    sound = (out / "model.safetensors").read_bytes()
    with open(out / "model.safetensors", "r+b") as file:             # in the run's folder, too: it is one file
        file.seek(-1, os.SEEK_END)
        file.write(b"\0" if sound[-1] else b"\1")
    train("generator", training_params(), None, None, codes, tmp_path)
    assert (out / "model.safetensors").read_bytes() == sound


def test_an_output_with_a_file_of_somebodys_is_not_replaced(codes, tmp_path, untrainable):
    out = train("generator", training_params(), None, None, codes, tmp_path)
    (out / "notes.txt").write_text("mine")
    untrainable()
    with pytest.raises(FileError, match=r"out: holds notes\.txt, which writing generator there would delete"):
        train("generator", training_params("seed=1"), None, None, codes, tmp_path)


def test_what_nothing_shows_any_more_is_not_kept(codes, tmp_path):
    other = training_params("generator_training.clip=0.5")
    train("generator", training_params(), None, None, codes, tmp_path)
    train("generator", other, None, None, codes, tmp_path)
    assert len(list((tmp_path / "run").glob("*/finished"))) == 1


# What belongs to others stays, too.

def test_a_run_deletes_nothing_that_it_did_not_make(codes, tmp_path):
    for path in ("photos/a.jpg", "0123456789ab/thesis.tex", "exp/state_4.pt"):
        (tmp_path / "run" / path).parent.mkdir(parents=True)
        (tmp_path / "run" / path).write_text("mine")
    train("generator", training_params(), None, None, codes, tmp_path)
    mine = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    assert sorted(mine) == ["a.jpg", "state_4.pt", "thesis.tex"]


def test_runs_lie_side_by_side(codes, tmp_path):
    train_generator(training_params(), codes, codes.parent, tmp_path / "runs/750k", tmp_path / "out")
    for folder in ("runs", "runs/750k/mine"):
        with pytest.raises(StateError, match=rf"{folder}: .*belongs to another run; give every run a folder of its own"):
            train_generator(training_params("seed=1"), codes, codes.parent, tmp_path / folder, tmp_path / "out2")


@pytest.mark.parametrize("held", ["photos/a.jpg", "manifest.json"])
def test_only_a_generator_is_replaced_by_one(held, codes, tmp_path, untrainable):
    (tmp_path / "out" / held).parent.mkdir(parents=True)
    (tmp_path / "out" / held).write_text('{"kind": "codes"}')
    untrainable()
    with pytest.raises(FileError, match=r"out: .*, which writing generator there would delete; name another folder"):
        train("generator", training_params(), None, None, codes, tmp_path)
    assert (tmp_path / "out" / held).is_file() and not (tmp_path / "run").exists()


def test_a_state_of_another_run_or_altered_is_passed_over(killed_in_step_7, codes, tmp_path, caplog):
    older, newest = states(killed_in_step_7)
    foreign = torch.load(newest)
    save_state(newest, foreign | {"identity": "another"})
    data = bytearray(older.read_bytes())
    with zipfile.ZipFile(older) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    data[largest.header_offset + largest.file_size] ^= 1                          # within its bytes
    older.write_bytes(data)
    with caplog.at_level("INFO", "restok"):
        resumed = train("generator", training_params(), None, None, codes, killed_in_step_7)
    assert f"{newest}: of another run" in caplog.text and f"{older}: " in caplog.text and "resuming" not in caplog.text
    whole = train("generator", training_params(), None, None, codes, tmp_path / "whole")
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()


def test_a_checkpoint_whose_state_was_swapped_is_refused(digits, classifier, codes, tmp_path):
    for seed in (1, 2):
        train("tokenizer", training_params(f"seed={seed}"), digits, classifier, codes, tmp_path / str(seed))
    shutil.copy(tmp_path / "1/out/state.pt", tmp_path / "2/out/state.pt")
    with pytest.raises(StateError, match=r"state\.pt: not the file that manifest\.json beside it lists.*train that"):
        train("tokenizer", training_params("seed=2"), digits, classifier, codes, tmp_path / "3", "second", tmp_path / "2/out")


@pytest.mark.parametrize("lacking", ["step", "identity", "state"])
def test_a_state_that_lacks_a_part_is_passed_over(killed_in_step_7, codes, caplog, lacking):
    newest = states(killed_in_step_7)[-1]
    save_state(newest, {key: value for key, value in torch.load(newest).items() if key != lacking})
    with caplog.at_level("INFO", "restok"):
        train("generator", training_params(), None, None, codes, killed_in_step_7)
    assert f"{newest}: not a state of a run" in caplog.text and "state_4.pt: resuming after step 4" in caplog.text


def test_a_checkpoint_whose_weights_were_swapped_or_that_does_not_say_its_step_is_refused(digits, classifier, codes, tmp_path):
    for seed in (1, 2):
        train("tokenizer", training_params(f"seed={seed}"), digits, classifier, codes, tmp_path / str(seed))
    given = training_params("seed=2"), digits, classifier, codes, tmp_path / "3", "second", tmp_path / "2/out"
    shutil.copy(tmp_path / "1/out/model.safetensors", tmp_path / "2/out/model.safetensors")
    with pytest.raises(StateError, match=r"model\.safetensors: not the file that manifest\.json beside it lists.*train that"):
        train("tokenizer", *given)
    (tmp_path / "2/out/metrics.json").write_text("{}")
    with pytest.raises(FileError, match=r"2/out/metrics\.json: has no 'step'"):
        train("tokenizer", *given)


# What goes wrong.

def test_a_loss_that_is_not_finite_is_named_and_the_last_good_state_stays(codes, tmp_path, monkeypatch):
    step = GeneratorJob.step
    poisoned = lambda self, batch, n: step(self, batch, n) | ({"cross_entropy": torch.tensor(nan)} if n == 4 else {})  # noqa: E731
    monkeypatch.setattr(GeneratorJob, "step", poisoned)
    with pytest.raises(LossError, match=r"loss cross_entropy is not finite within the steps before 5; .*state_4\.pt"):
        train("generator", training_params(), None, None, codes, tmp_path)
    assert load_state(states(tmp_path)[-1])["step"] == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("spoiled", "kept"), [(4, r"state_2\.pt"), (8, r"state_6\.pt")])
def test_weights_spoiled_by_an_update_whose_loss_was_finite_are_not_kept(spoiled, kept, codes, tmp_path, monkeypatch):
    """Neither as a state, nor as the finished model; resuming would otherwise start from them for ever."""
    step = GeneratorJob.step

    def spoil(self, batch, number):
        losses = step(self, batch, number)
        if number == spoiled - 1:
            with torch.no_grad():
                self.generator.head.weight[0] = nan
        return losses

    monkeypatch.setattr(GeneratorJob, "step", spoil)
    with pytest.raises(LossError, match=rf"after step {spoiled}, generator\.head\.weight is not finite; .*{kept}"):
        train("generator", training_params(), None, None, codes, tmp_path)
    assert f"state_{spoiled}.pt" not in [path.name for path in states(tmp_path)] and not (tmp_path / "out").exists()


def test_a_second_run_on_the_same_folder_is_refused(codes, tmp_path):
    with RunFolder(tmp_path / "run", "first"), pytest.raises(StateError, match="another run is at work here"):
        train("generator", training_params(), None, None, codes, tmp_path)
    train("generator", training_params(), None, None, codes, tmp_path)            # and let in once the first is done


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from restok.training.state import RunFolder
with RunFolder(Path(sys.argv[1]), "run") as run:
    run.save(1, {"weights": torch.ones(3)})
    torch.save = lambda state, file: (file.write(b"half"), file.flush(), os.kill(os.getpid(), signal.SIGKILL))
    run.save(2, {})
"""


def test_what_a_process_killed_while_it_saved_left_is_removed(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT).returncode < 0
    assert len(list(tmp_path.glob("*/.*"))) == 1
    with RunFolder(tmp_path, "run") as run:
        step, state = run.resume()
        assert (step, state["weights"].tolist()) == (1, [1, 1, 1])
        assert {path.name for path in run.folder.iterdir()} == {"state_1.pt", "calls.json"}


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from restok.training.state import RunFolder, StateError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with RunFolder(Path(sys.argv[1]), "run") as run:
    run.save(1, {"weights": torch.ones(1000)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        run.save(2, {"weights": torch.ones(100_000)})
    except StateError as error:
        print(error)
    step, state = run.resume()
    print(step, state["weights"].sum().item(), sorted(path.name for path in run.folder.glob("*.pt")))
"""


def test_a_full_disk_leaves_the_state_before_and_says_so(tmp_path):
    """A real failure to write: files may not grow beyond 20,000 bytes."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert "state_2.pt: could not be written" in done.stdout, done.stderr
    assert "earlier states are untouched" in done.stdout and "Free some disk space" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 1000.0 ['state_1.pt']"


@pytest.mark.parametrize(("make", "batch"), [(tokenizer_job, tokenizer_batch), (generator_job, generator_batch)])
def test_the_size_of_a_state_and_of_the_model_is_known_before_the_first_step(make, batch, classifier, tmp_path):
    job = make(training_params(), classifier)
    state, model = sizes(job)
    for step in range(2):
        job.step(batch(step), step)
    save_state(tmp_path / "state.pt", job.state_dict())
    save_model(tmp_path, job.average.module)
    tensors = sum(isinstance(leaf, torch.Tensor) for leaf in flat(job.state_dict()).values())
    assert 0 <= (tmp_path / "state.pt").stat().st_size - state < 700 * tensors          # what describes a tensor
    assert 0 <= (tmp_path / "model.safetensors").stat().st_size - model < 200 * tensors


@pytest.mark.parametrize(("states_there", "free", "refused"), [(0, 149, True), (0, 150, False), (2, 99, True), (2, 100, False)])
def test_a_disk_without_room_for_a_state_and_the_model_is_refused_before_the_first_step(
        states_there, free, refused, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Mock(free=free * 10**9))
    run, needed = RunFolder(tmp_path / "run", "run"), (tmp_path / "out", 100 * 10**9, 50 * 10**9)
    for step in range(states_there):
        (run.folder / f"state_{step}.pt").touch()
    with caplog.at_level("INFO", "restok"):
        if refused:
            with pytest.raises(StateError, match=r"run: .* GB are free on this disk, but a state .*; free at least 1 GB"):
                run.require_space(*needed)
        else:
            run.require_space(*needed)
    assert f"a state takes 100 GB, of which there are up to 3, and what is made of them 50 GB; {free} GB are" in caplog.text


def test_a_full_disk_is_seen_before_a_training_begins(codes, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Mock(free=1000))
    monkeypatch.setattr(GeneratorJob, "step", None)
    with pytest.raises(StateError, match="are free on this disk, but a state takes"):
        train("generator", training_params(), None, None, codes, tmp_path)


def test_a_log_that_finds_no_room_ends_the_training_with_its_name(tmp_path, small_files):
    with pytest.raises(StateError, match=r"log\.jsonl: could not be written .*Free some disk space and run .*it resumes"):
        with log_file(tmp_path / "log.jsonl", 0) as write:
            write({"step": 1})
            with small_files(15):
                write({"step": 2})
    assert (tmp_path / "log.jsonl").read_text().startswith('{"step": 1}\n')


def test_a_folder_that_cannot_be_written_any_more_is_named_with_its_own_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.save", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(StateError, match=r"state_1\.pt: could not be written .*Make its folder one that can be written"):
        save_state(tmp_path / "state_1.pt", {})


def test_a_reader_that_dies_over_lost_images_is_an_error_that_names_them(
        unchecked, digits, classifier, codes, tmp_path, monkeypatch):
    """As over a file that was cut short while it was read, which is a bus error. It is told by a signal, at any moment: while
    annotations are checked, it would come out as another error."""
    view = loader._training_view

    def dies(image, position, **settings):
        if position == 30:
            os.kill(os.getpid(), signal.SIGBUS)
        return view(image, position, **settings)

    monkeypatch.setattr(loader, "_training_view", dies)
    params = training_params("data.workers=1", "tokenizer_training.checkpoints={first: 100}")
    with pytest.raises(DataError, match=r"data: a process that read images ended \(DataLoader worker .*run `restok prepare`"):
        train("tokenizer", params, digits, classifier, codes, tmp_path)
    assert states(tmp_path) and not (tmp_path / "out").exists()


class Pickle:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_state_that_holds_a_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"identity": "run", "step": 1, "state": Pickle(tmp_path / "ran")}, tmp_path / "state_1.pt")
    with pytest.raises(StateError, match=r"state_1\.pt: damaged or cut short"):
        load_state(tmp_path / "state_1.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_nobody_named_and_a_wrong_predecessor_are_refused(digits, classifier, codes, tmp_path):
    arguments = training_params(), digits, classifier, codes, tmp_path
    with pytest.raises(ConfigError, match=r"checkpoint 'third': tokenizer_training\.checkpoints has first, second"):
        train("tokenizer", *arguments, checkpoint="third")
    with pytest.raises(ConfigError, match="checkpoint second: give the folder of first to go on from"):
        train("tokenizer", *arguments, checkpoint="second")
    with pytest.raises(ConfigError, match="checkpoint first: is the first"):
        train("tokenizer", *arguments, previous=tmp_path)
    with pytest.raises(ConfigError, match="nowhere: no checkpoint here to go on from; train first first"):
        train("tokenizer", *arguments, checkpoint="second", previous=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no classifier here.*restok train-classifier"):
        train("tokenizer", training_params(), digits, tmp_path / "nowhere", codes, tmp_path)


def test_codes_of_another_tokenizer_are_refused(codes, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(CodesError, match="restok encode"):
        train_generator(training_params(), codes, tmp_path, tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_generator_for_other_classes_than_the_data_s_is_refused_before_training(digits, classifier, codes, tmp_path):
    other = training_params("generator.classes=9")
    with pytest.raises(ConfigError, match=r"generator\.classes: 9, but .* has 10 classes"):
        train("tokenizer", other, digits, classifier, codes, tmp_path)
    with pytest.raises(ConfigError, match=r"generator\.classes: 9, but the codes in .* have 10"):
        train("generator", other, None, None, codes, tmp_path)


def test_codes_of_another_shape_are_refused(codes, tmp_path):
    other = training_params("generator.codebook_size=128", "tokenizer.codebook_size=128")
    with pytest.raises(ConfigError, match=r"generator\.codebook_size: 128, but the codes in .* have 64"):
        train("generator", other, None, None, codes, tmp_path)


# Finished models.

@pytest.mark.parametrize("ntp", [4, "all"])
def test_a_saved_model_comes_back_as_it_was(ntp, tmp_path):
    job = GeneratorJob(training_params(f"generator.ntp={ntp}"), CPU)
    save_model(tmp_path, job.generator)
    loaded = load_generator(tmp_path)
    assert not loaded.training and loaded.config == job.params.generator
    assert differences(dict(loaded.state_dict()), dict(job.generator.state_dict())) == []


def test_weights_that_are_missing_cut_short_or_of_another_model_are_refused_by_name(tmp_path):
    with pytest.raises(WeightsError, match=r"no model here .*`restok train-generator` makes one"):
        load_generator(tmp_path)
    save_model(tmp_path, GeneratorJob(training_params(), CPU).generator)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_tokenizer(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"width": 32', '"width": 64'))
    with pytest.raises(WeightsError, match=r"model\.safetensors: does not fit .*config\.json beside it, first at 'blocks\.0"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text(config)
    weights = tmp_path / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(WeightsError, match=r"model\.safetensors: damaged or cut short .*`restok train-generator` again"):
        load_generator(tmp_path)


@pytest.mark.parametrize(("overrides", "message"), [
    (["classifier.learning_rate=1e30", "classifier.steps=30"], r"not finite from step \d+ on; lower classifier\.learning_rate"),
    (["classifier.learning_rate=1e45", "classifier.steps=1"], "holds NaN or infinity, so the SmallClassifier is not saved")])
def test_a_classifier_that_diverges_is_not_saved(digits, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        train_classifier(small_params("classifier.channels=[4,4,4]", *overrides), digits, tmp_path / "out")
    assert not (tmp_path / "out").exists()
