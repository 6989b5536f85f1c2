"""From data to measurements on a chain of tiny, untrained models."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_params

from restok.cli import app
from restok.config import Guidance
from restok.config.load import ConfigError
from restok.data.codes import CodeStore
from restok.data.images import open_images
from restok.data.table import open_split
from restok.errors import InputError
from restok.files import read_json, sha256_file, write_json
from restok.metrics.results import ComparisonError
from restok.metrics.statistics import Statistics, StatisticsError
from restok.networks.saved import WeightsError
from restok.parts import WHOLE, Shard
from restok.stages.codes import encode
from restok.stages.evaluator import CHUNK, Evaluator
from restok.stages.images import balanced_labels, sample
from restok.stages.images import panel as make_panel
from restok.stages.measure import evaluate, write_statistics
from restok.stages.reconstruct import reconstruct
from restok.stages.sampler import Sampler
from restok.stages.subjects import MeasureError, images_of, reconstructed, reconstructions_of, sampled
from restok.tokenizer.model import ResTok
from restok.weights import load_tokenizer, save_model

PARAMS = small_params("evaluation.samples_per_class=3", "sampling.batch_size=7")


def plain(text):
    """Without the frame that the command line's own messages stand in."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="session")
def chain(digits, classifier, models):
    """The folder of them all: data, classifier, tokenizer, generator."""
    return models


def test_encode_stores_the_codes_of_every_crop_in_order(chain, tmp_path):
    encode(PARAMS, chain / "data", chain / "tokenizer", tmp_path / "codes", "validation")
    store = CodeStore(tmp_path / "codes", sha256_file(chain / "tokenizer/model.safetensors"))
    split = open_split(chain / "data", "validation")
    assert store.codes.shape == (len(split), 5, 16) and (store.labels == split.labels).all()
    assert store.manifest["dataset"] == split.digest
    from restok.data.transforms import crops, to_tensor
    views = to_tensor(crops(split[7][0], 16, PARAMS.codes))
    assert torch.equal(load_tokenizer(chain / "tokenizer").encode(views), torch.from_numpy(store.codes[7].astype(np.int64)))


def test_reconstructions_keep_their_codes_and_are_measured_alike_from_a_file_and_from_memory(chain, tmp_path):
    reconstruct([chain / "data"], chain / "tokenizer", tmp_path / "r.npz")
    found = np.load(tmp_path / "r.npz")
    assert found["arr_0"].shape == (360, 16, 16, 3) and found["arr_0"].dtype == np.uint8 and found["codes"].shape == (360, 16)
    evaluator, originals = evaluator_of(chain, paired=True), open_images(chain / "data", 16)
    streamed = reconstructed(chain / "tokenizer", originals, 100)
    stored = reconstructions_of(open_images(tmp_path / "r.npz"), originals, tmp_path / "r.npz", PARAMS.tokenizer)
    results = [evaluate(evaluator, subject, chain / "data", tmp_path / "e.json") for subject in (streamed, stored)]
    assert results[0]["protocol"] == "reconstruction" and results[0]["n"] == 360
    assert json.loads((tmp_path / "e.json").read_text()) == results[1]
    assert results[0]["metrics"]["codebook"] == results[1]["metrics"]["codebook"]
    for name in ("rFD-digits", "psnr", "ssim"):
        assert results[0]["metrics"][name] == pytest.approx(results[1]["metrics"][name], rel=1e-4)


def test_the_panel_has_every_prefix(chain, tmp_path):
    make_panel(chain / "data", chain / "tokenizer", tmp_path / "p.npz")
    panel = np.load(tmp_path / "p.npz")
    assert panel["kept"].tolist() == [1, 2, 4, 8, 16] and panel["prefixes"].shape == (8, 5, 16, 16, 3)
    attention = panel["attention"]                                              # layers levels scales; S1 the coarsest
    assert attention.shape == (4, 5, 3)
    assert np.isnan(attention).all(axis=1).astype(int).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    total = np.nansum(attention, axis=2)
    assert (total > 0).all() and (total < 1).all()                              # the rest is paid to latents
    error = np.square(panel["prefixes"].astype(float) - panel["originals"][:, None]).mean((2, 3, 4))
    assert panel["psnr"] == pytest.approx(10 * np.log10(255**2 / error), rel=1e-12)


def test_samples_do_not_depend_on_the_batch_and_are_measured_without_a_file(chain, tmp_path):
    guidance, models = Guidance(schedule="linear", scale=2.0), (chain / "tokenizer", chain / "generator")
    sampling, rest = PARAMS.sampling.model_copy(update={"guidance": guidance}), (PARAMS.seed, [], None, 3)
    sample(*models, sampling, *rest, tmp_path / "s.npz")
    found = np.load(tmp_path / "s.npz")
    assert found["arr_0"].shape == (30, 16, 16, 3) and np.bincount(found["labels"]).tolist() == [3] * 10
    sample(*models, sampling.model_copy(update={"batch_size": 30}), *rest, tmp_path / "whole.npz")
    apart = np.abs(np.load(tmp_path / "whole.npz")["arr_0"].astype(int) - found["arr_0"])
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01      # the same codes; a product of another shape rounds otherwise
    streamed = sampled(Sampler(chain / "tokenizer", chain / "generator", PARAMS.sampling), PARAMS, guidance, 3, PARAMS.seed)
    evaluator, results = evaluator_of(chain), []
    for subject in (streamed, images_of(open_images(tmp_path / "s.npz"))):
        results.append(evaluate(evaluator, subject, chain / "data", tmp_path / "e.json", seed=PARAMS.seed))
    assert results[0]["protocol"] == "generation" and results[0]["names"]["distance"] == "FD-digits"
    assert numbers(results[0]) == pytest.approx(numbers(results[1]), rel=1e-3)
    assert results[0]["seed"] == PARAMS.seed and results[0]["samples"]["balanced"]


def test_without_guidance_image_by_image_from_the_same_numbers(command, chain, tmp_path):
    given = ["--params", "params/demo.yaml", "--set", "evaluation.samples_per_class=3", "--classifier", chain / "classifier",
             "--tokenizer", chain / "tokenizer", "--generator", chain / "generator", "--reference", chain / "data"]
    strong, none = (f"sampling.guidance={{schedule: constant, scale: {scale}}}" for scale in (4.0, 1.0))
    calls = {"unguided": ["--set", strong, "--unguided"], "none": ["--set", none], "guided": ["--set", strong]}
    found = {}
    for name, words in calls.items():
        result = command("evaluate", *given, *words, "--out", tmp_path / f"{name}.json")
        assert result.exit_code == 0, result.stderr
        found[name] = read_json(tmp_path / f"{name}.json")
    assert found["unguided"]["digest"] == found["none"]["digest"] != found["guided"]["digest"]
    assert found["unguided"]["metrics"] == found["none"]["metrics"] != found["guided"]["metrics"]
    same = "n", "seed", "features", "reference"
    assert all(found["unguided"][key] == found["guided"][key] for key in same)
    assert found["unguided"]["settings"]["guidance"]["scale"] == 1
    parts = [tmp_path / f"{part}.safetensors" for part in (0, 1)]
    for part, file in enumerate(parts):
        result = command("statistics", *given[:-2], "--unguided", "--part", f"{part}/2", "--out", file)
        assert result.exit_code == 0, result.stderr
    result = command("evaluate", *given, "--unguided", *(word for file in parts for word in ("--samples", file)), "--out",
                     tmp_path / "added.json")
    assert result.exit_code == 0 and read_json(tmp_path / "added.json")["digest"] == found["none"]["digest"], result.stderr
    result = command("evaluate", *given, "--set", strong, *(word for file in parts for word in ("--samples", file)))
    assert result.exit_code == 1 and "not a part of what is measured" in result.stderr


def test_some_classes_can_be_sampled_alone(chain, tmp_path):
    sample(chain / "tokenizer", chain / "generator", PARAMS.sampling, 0, [], 3, 2, tmp_path / "s.npz")
    assert np.load(tmp_path / "s.npz")["labels"].tolist() == [0, 4, 9, 0, 4, 9]


def test_more_classes_than_there_are_cannot_be_sampled(chain, tmp_path):
    with pytest.raises(ConfigError, match=r"50 classes: .*generator has 10; ask for as many at most"):
        sample(chain / "tokenizer", chain / "generator", PARAMS.sampling, 0, [], 50, 2, tmp_path / "s.png")


def test_labels_are_balanced_in_every_stretch():
    assert balanced_labels(3, 2).tolist() == [0, 1, 2, 0, 1, 2]


def test_a_generator_refuses_another_tokenizer(chain, tmp_path):
    save_model(tmp_path, ResTok(PARAMS.tokenizer))
    with pytest.raises(WeightsError, match="trained on codes of tokenizer"):
        Sampler(tmp_path, chain / "generator", PARAMS.sampling)


# Measuring: files, shards, processes, interrupted runs

def evaluator_of(chain, paired=False):
    return Evaluator.load(PARAMS.evaluation, chain / "classifier", 16, 0, paired)


def pictures(n, seed=0, side=16):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def numbers(result):
    """Every metric and interval that was measured."""
    intervals = {f"{name} {end}": bound for name, interval in result["intervals"].items() if name in result["names"].values()
                 and interval for end, bound in zip(("low", "high"), interval, strict=True)}
    found = intervals | {name: value for name, value in result["metrics"].items() if isinstance(value, float)}
    assert len(found) > 8
    return found


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Somebody's samples: three chunks of images."""
    path = tmp_path_factory.mktemp("theirs") / "theirs.npz"
    np.savez(path, arr_0=pictures(2 * CHUNK + 100))
    return path


def test_a_run_cut_in_half_resumes_bit_for_bit(chain, theirs, tmp_path, monkeypatch):
    settings = small_params("evaluation.save_every=1").evaluation
    evaluator = Evaluator.load(settings, chain / "classifier", 16, 0)
    whole, state = evaluator.statistics(images_of(open_images(theirs))), tmp_path / "state.safetensors"
    calls = []
    original = Statistics.update

    def update(self, start, *rest):
        calls.append(start)
        if start == CHUNK and len(calls) < 3:
            raise KeyboardInterrupt
        original(self, start, *rest)

    monkeypatch.setattr(Statistics, "update", update)
    with pytest.raises(KeyboardInterrupt):
        evaluator.statistics(images_of(open_images(theirs)), state)
    for _ in range(2):                                                       # the second time nothing is left to do
        resumed = evaluator.statistics(images_of(open_images(theirs)), state)
        assert calls == [0, CHUNK, CHUNK, 2 * CHUNK]                         # the first chunk is not measured again
        for name, tensor in whole.tensors.items():
            assert torch.equal(tensor, resumed.tensors[name]), name


def test_a_state_of_something_else_is_not_resumed_and_a_finished_one_goes(chain, theirs, tmp_path, caplog):
    evaluator, state = evaluator_of(chain), tmp_path / "state.safetensors"
    np.savez(tmp_path / "other.npz", arr_0=pictures(30, seed=1))
    evaluator.statistics(images_of(open_images(tmp_path / "other.npz"))).save(state)
    found = evaluator.statistics(images_of(open_images(theirs)), state)
    assert "of other images, settings or shards; starting again" in caplog.text and found.seen.all()
    state.write_text("cut short")
    evaluate(evaluator, images_of(open_images(theirs)), chain / "data", tmp_path / "e.json", state=state)
    assert "not a statistics file, or cut short" in caplog.text and not state.exists()


def test_the_state_of_another_shard_or_of_other_originals_is_not_resumed(chain, theirs, tmp_path, caplog):
    settings = small_params("evaluation.save_every=1").evaluation
    evaluator, state = Evaluator.load(settings, chain / "classifier", 16, 0), tmp_path / "state.safetensors"
    evaluator.statistics(images_of(open_images(theirs)), state, Shard(0, 2))
    found = evaluator.statistics(images_of(open_images(theirs)), state, Shard(1, 2))
    assert "starting again" in caplog.text and not found.seen[0] and found.seen[-1]
    evaluator.statistics(images_of(open_images(theirs)), None, Shard(2, 3)).save(state)             # the last chunk of the two
    found = evaluator.statistics(images_of(open_images(theirs)), state, Shard(1, 2))
    assert caplog.text.count("starting again") == 2 and found.seen[CHUNK:].all() and found.seen.max() == 1
    subjects = []
    for seed in (1, 2):
        np.savez(tmp_path / f"o{seed}.npz", arr_0=pictures(2 * CHUNK + 100, seed=seed))
        subjects.append(reconstructions_of(open_images(theirs), open_images(tmp_path / f"o{seed}.npz"), theirs, None))
    with pytest.raises(StatisticsError, match="do not add: images differ"):
        evaluator.begin(subjects[0]) + evaluator.begin(subjects[1])


def test_the_sums_are_not_kept_where_something_else_goes_and_take_nothing_with_them(chain, theirs, tmp_path):
    evaluator, state = evaluator_of(chain), tmp_path / "s.safetensors"
    with pytest.raises(MeasureError, match="name another file with --state"):
        write_statistics(evaluator, images_of(open_images(theirs)), WHOLE, state, state)
    (tmp_path / "s.process1of2.safetensors").touch()
    (tmp_path / "s.1of2.safetensors").touch()                                      # a shard of somebody's
    (tmp_path / ".s.0a1b.partial.safetensors").touch()
    evaluate(evaluator, images_of(open_images(theirs)), chain / "data",
             tmp_path / "e.json", state=state, kept=tmp_path / "s_kept.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "e.json", "s.1of2.safetensors", "s.json", "s_kept.safetensors"]


@pytest.fixture
def unmeasurable(monkeypatch):
    """Call it, and nothing is measured from there on."""
    def refuse(*words):
        raise AssertionError("was measured again")

    return lambda: monkeypatch.setattr(Evaluator, "_take", refuse)


def test_what_was_measured_is_not_measured_again(chain, theirs, tmp_path, unmeasurable, caplog):
    """It stands, copied without its times; or the workflow deleted it, because it was killed before it recorded success."""
    evaluator, subject = evaluator_of(chain), images_of(open_images(theirs))
    write_statistics(evaluator, subject, WHOLE, tmp_path / "runs/r.safetensors", tmp_path / "reference.safetensors")
    assert (tmp_path / "runs/r.safetensors").exists() and (tmp_path / "reference.safetensors").stat().st_nlink == 1
    told = []

    def measure():
        evaluate(evaluator, subject, tmp_path / "reference.safetensors", tmp_path / "e.json", seed=1,
                 state=tmp_path / "s.safetensors", show=told.append)
        return (tmp_path / "e.json").read_bytes()

    first = measure()
    unmeasurable()
    caplog.set_level("INFO", "restok")
    assert measure() == first and "e.json: measured before" in caplog.text
    (tmp_path / "e.json").unlink()
    assert measure() == first and "s.json: measured before" in caplog.text
    assert told[0] == told[1] == told[2]
    for deleted in (False, True):
        if deleted:
            (tmp_path / "reference.safetensors").unlink()
        write_statistics(evaluator, subject, WHOLE, tmp_path / "runs/r.safetensors", tmp_path / "reference.safetensors")
    assert "reference.safetensors: measured before" in caplog.text and "goes on from image" in caplog.text


def test_a_part_without_images_takes_the_place_of_another_measurements(chain, theirs, tmp_path):
    """Parts are cut between 512 images: of nine parts of a small set the first has none."""
    evaluator, part = evaluator_of(chain), tmp_path / "part0.safetensors"
    others = images_of(open_images(chain / "data", evaluator.crop))
    write_statistics(evaluator, others, Shard(0, 9), None, part)
    subject = images_of(open_images(theirs))
    write_statistics(evaluator, subject, Shard(0, 9), None, part)
    assert Statistics.load(part).facts == evaluator.begin(subject).facts and not Statistics.load(part).seen.any()


@pytest.mark.parametrize("change", ["seed", "value"])
def test_a_result_of_another_seed_or_with_other_numbers_is_measured_again(change, chain, theirs, tmp_path):
    evaluator, subject, out = evaluator_of(chain), images_of(open_images(theirs)), tmp_path / "e.json"
    evaluate(evaluator, subject, chain / "data", out, seed=1)
    result = read_json(out)
    write_json(out, result | {"seed": 2} if change == "seed" else result | {"n": 7})
    again = evaluate(evaluator, subject, chain / "data", out, seed=1)
    assert again | {"made": None} == result | {"made": None} == read_json(out) | {"made": None}


def test_a_process_chooses_its_device_before_anything_is_loaded(command, chain, theirs, monkeypatch):
    """Everything loads within the group of processes, where each has its own device."""
    found, load = [], Evaluator.load
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Evaluator, "load", lambda *words: found.append(torch.distributed.is_initialized()) or load(*words))
    result = command("evaluate", "--params", "params/demo.yaml", "--classifier", str(chain / "classifier"), "--samples",
                     str(theirs), "--reference", str(chain / "data"))
    assert result.exit_code == 0 and found == [True] and not torch.distributed.is_initialized()


def test_two_processes_equal_one(chain, theirs, tmp_path):
    """Two gloo processes, each with a share of the samples and of the reference, and what they add up to."""
    command = ["--params", "params/demo.yaml", "--samples", str(theirs), "--reference", str(chain / "data"), "--classifier",
               str(chain / "classifier")]
    restok = [str(Path(sys.executable).with_name("restok")), "evaluate", *command]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    for prefix, name in (([], "one"), (torchrun, "two")):
        subprocess.run([*prefix, *restok, "--out", str(tmp_path / f"{name}.json")], check=True, capture_output=True)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert numbers(two) == pytest.approx(numbers(one), rel=1e-9) and two["refused"] == one["refused"]
    assert {key: one[key] for key in ("n", "features", "reference", "samples")} == {key: two[key] for key in (
        "n", "features", "reference", "samples")}


def test_an_adm_reference_measures_without_its_images_but_says_what_is_missing(chain, theirs, tmp_path):
    evaluator = evaluator_of(chain)
    own = evaluator.reference(chain / "data").gaussian("pooled")
    covariance = own.factor.T @ own.factor if own.covariance is None else own.covariance
    np.savez(tmp_path / "adm.npz", mu=own.mean.numpy(), sigma=covariance.numpy())
    bare = evaluate(evaluator, images_of(open_images(theirs)), tmp_path / "adm.npz")
    whole = evaluate(evaluator, images_of(open_images(theirs)), chain / "data")
    assert bare["metrics"]["FD-digits"] == pytest.approx(whole["metrics"]["FD-digits"], rel=1e-6)
    assert bare["metrics"]["precision"] is None and "adm.npz" in bare["refused"]["precision"]
    assert bare["reference"]["digest"] == sha256_file(tmp_path / "adm.npz")
    np.savez(tmp_path / "with.npz", mu=own.mean.numpy() + 1, sigma=covariance.numpy(), arr_0=pictures(50, seed=2))
    found = evaluate(evaluator, images_of(open_images(theirs)), tmp_path / "with.npz")
    assert found["metrics"]["FD-digits"] == pytest.approx(whole["metrics"]["FD-digits"] + len(own.mean)
                                                          - 2 * (mean_of(evaluator, theirs) - own.mean).sum().item(), rel=1e-4)
    assert found["metrics"]["precision"] is not None and found["reference"]["published"] == ["pooled"]


def mean_of(evaluator, path):
    return evaluator.statistics(images_of(open_images(path))).gaussian("pooled").mean


def test_images_that_cannot_be_measured_are_refused_by_name(chain, theirs, tmp_path):
    evaluator = evaluator_of(chain)
    with pytest.raises(MeasureError, match=r"theirs\.npz: 1124 images, not the 50000 asked for"):
        evaluate(evaluator, images_of(open_images(theirs)), chain / "data", tmp_path / "e.json", expected=50_000)
    np.savez(tmp_path / "larger.npz", arr_0=pictures(20, side=20))
    with pytest.raises(ComparisonError, match=r"larger\.npz has images of 20x20, digits validation.* of 16x16"):
        evaluate(evaluator, images_of(open_images(tmp_path / "larger.npz")), chain / "data", tmp_path / "e.json")
    np.savez(tmp_path / "neither.npz", images=pictures(2))
    with pytest.raises(MeasureError, match=r"neither\.npz: has neither arr_0 .images. nor mu and sigma"):
        evaluator.reference(tmp_path / "neither.npz")
    with pytest.raises(MeasureError, match="go image by image"):
        reconstructions_of(open_images(theirs), open_images(chain / "data", 16), theirs, None)
    assert not (tmp_path / "e.json").exists()


@pytest.mark.parametrize(("options", "message"), [
    ([], "name either --samples, or --tokenizer"),
    (["--samples", "a.npz", "--generator", "g"], "--generator, --guidance and --unguided draw samples with --tokenizer"),
    (["--samples", "a.npz", "--unguided"], "--generator, --guidance and --unguided draw samples with --tokenizer"),
    (["--tokenizer", "t", "--generator", "g", "--guidance", "g.json", "--unguided"], "with guidance or without; leave one out"),
    (["--tokenizer", "t", "--originals", "o.npz", "--unguided"], "samples take --generator and --guidance or --unguided too"),
    (["--samples", "a.safetensors", "--originals", "o.npz"], "leave --originals out"),
    (["--samples", "a.npz", "--samples", "b.npz"], "only statistics files"),
    (["--tokenizer", "{tokenizer}"], "name their --originals"),
    (["--samples", "a.safetensors"], "nothing to measure against")])
def test_calls_that_mean_nothing_are_refused_with_the_remedy(command, chain, options, message):
    options = [option.format(tokenizer=chain / "tokenizer") for option in options]
    result = command("evaluate", "--params", "params/demo.yaml", "--classifier", str(chain / "classifier"), *options)
    assert result.exit_code == 1 and message in result.stderr


@pytest.mark.parametrize(("options", "message"), [
    (["--crop", "0"], "--crop"), (["--crop", "-5"], "--crop"), (["--workers", "-3"], "--workers"),
    (["--seed", str(2**43)], "--seed")])
def test_options_out_of_their_range_are_refused(command, chain, theirs, options, message):
    result = command("evaluate", "--params", "params/demo.yaml", "--classifier", chain / "classifier", "--samples", theirs,
                     "--reference", chain / "data", *options)
    assert result.exit_code == 2 and f"Invalid value for '{message}'" in plain(result.stderr)


def test_images_too_small_for_the_classifier_are_refused(chain, tmp_path):
    np.savez(tmp_path / "small.npz", arr_0=pictures(5, side=3))
    with pytest.raises(InputError, match="images of 3x3: too small for the digits classifier, which takes 4x4 pixels"):
        evaluator_of(chain).statistics(images_of(open_images(tmp_path / "small.npz")))


@pytest.mark.parametrize(("options", "message"), [
    ([], "name either --samples, or --tokenizer"),
    (["{data}", "--samples", "a.npz"], "a reference is named alone"),
    (["--samples", "{sums}", "--part", "0/2"], "without images to take a shard of"),
    (["{adm}", "--part", "0/2"], "adm.npz: statistics, without images to take a shard of"),
    (["--tokenizer", "t", "--generator", "g", "--experiment", "restok.1"], "--experiment changes a parameter file")])
def test_statistics_of_nothing_or_of_two_things_are_refused(command, chain, options, message, tmp_path):
    evaluator = evaluator_of(chain)
    write_statistics(evaluator, images_of(open_images(chain / "data", 16)), WHOLE, None, tmp_path / "sums.safetensors")
    np.savez(tmp_path / "adm.npz", mu=np.zeros(8), sigma=np.eye(8))
    names = {"data": chain / "data", "sums": tmp_path / "sums.safetensors", "adm": tmp_path / "adm.npz"}
    options = [option.format(**names) for option in options]
    result = command("statistics", "--features", "digits", "--classifier", str(chain / "classifier"), *options, "--out",
                     str(tmp_path / "s.safetensors"))
    assert result.exit_code == 1 and message in result.stderr and not (tmp_path / "s.safetensors").exists()


def test_peers_samples_need_no_parameter_file(command, chain, theirs, tmp_path):
    result = command("evaluate", "--features", "digits", "--classifier", str(chain / "classifier"), "--samples", str(theirs),
                     "--reference", str(chain / "data"), "--crop", "16", "--set", "evaluation.neighbours=5", "--out",
                     str(tmp_path / "e.json"))
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["neighbours"] == 5 and found["metrics"]["precision adm-fp16"] is not None
    for part in ("FD-digits", "95 % interval", "per_class_accuracy: not measured"):
        assert part in result.stderr


def test_a_shard_has_two_numbers(command, chain, tmp_path):
    result = command("statistics", str(chain / "data"), "--params", "params/demo.yaml", "--classifier",
                     str(chain / "classifier"), "--part", "4/4", "--out", str(tmp_path / "s.safetensors"))
    assert result.exit_code == 1 and "part '4/4': expected PART/PARTS" in result.stderr


def test_errors_of_the_command_are_one_message(command, tmp_path):
    result = command("prepare", "--params", "params/demo.yaml", "--out", str(tmp_path / "d"), "--set", "tokenizer.widht=3")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "did you mean 'width'?" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "d").exists()


def test_what_was_measured_is_shown_even_where_it_cannot_be_written(command, chain, theirs, tmp_path, small_files):
    models = ["--tokenizer", chain / "tokenizer", "--generator", chain / "generator"]
    given = ["--params", "params/demo.yaml", "--classifier", chain / "classifier", "--set", "tokenizer.image_size=16", "--set",
             "guidance_search.samples_per_class=2"]
    against = ["--reference", chain / "data"]
    candidate = ["score-guidance", *given, *against, *models, "--schedule", "constant", "--scale", 2]
    seeds = ["evaluate", *given, *against, "--samples", theirs, "--seed"]
    for call in ([*candidate, "--out", tmp_path / "c.json"], *([*seeds, s, "--out", tmp_path / f"{s}.json"] for s in (1, 2))):
        result = command(*call)
        assert result.exit_code == 0 and "FD-digits" in result.stderr, result.stderr
    (tmp_path / "new").mkdir()
    for call, numbers, name in (
            ([*seeds, 1], ["FD-digits", "IS-digits"], "e.json"),
            ([*seeds, 1, "--statistics", tmp_path / "new/s.safetensors"], ["FD-digits", "IS-digits"], None),
            (["statistics", chain / "data", *given], ["360 of 360 images measured with digits classifier"], "s.safetensors"),
            (candidate, ["FD-digits", "KD-digits", "MIND-digits"], "c.json"),
            (["search-guidance", tmp_path / "c.json"], ["constant, at most 2 from 0 on: FD-digits"], "g.json"),
            (["average", tmp_path / "1.json", tmp_path / "2.json"], ["FD-digits", "deviation"], "a.json"),
            (["reconstruct", chain / "data", "--tokenizer", chain / "tokenizer"], ["PSNR, mean of"], "r.npz"),
            (["reconstruct", chain / "data", "--tokenizer", chain / "tokenizer"], ["PSNR, mean of"], "r")):
        with small_files(500):
            result = command(*call, *(["--out", tmp_path / "new" / name] if name else []))
        shown, _, error = result.stderr.partition("error: ")
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
        assert all(number in shown for number in numbers) and f"new/{name or 's.safetensors'}" in error, result.stderr


def test_every_verb_says_what_it_does(command):
    verbs = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands]
    assert len(verbs) == 32
    for verb in verbs:
        result = command(verb, "--help")
        assert result.exit_code == 0 and verb in result.stdout and "--" in result.stdout
