"""A measurement in parts: the same images and the same result, a part that was killed goes on, and what is no part is named."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_stages import evaluator_of, numbers, pictures

from restok.data.images import open_images
from restok.files import write_json
from restok.metrics.statistics import Statistics, StatisticsError
from restok.parts import WHOLE, Shard
from restok.stages.evaluator import CHUNK
from restok.stages.measure import added, evaluate, write_statistics
from restok.stages.subjects import MeasureError, images_of

OF_ORDER = ("pooled.", "spatial.", "score.", "likeness.")        # sums of float64, whose last digits depend on the order


@pytest.fixture
def made(digits, classifier, models):
    """The folder of prepared images, a classifier, a tokenizer and a generator."""
    return models


def test_parts_make_up_the_whole_and_what_is_missing_or_doubled_is_named(made, tmp_path):
    evaluator, theirs, data = evaluator_of(made), tmp_path / "theirs.npz", made / "data"
    np.savez(theirs, arr_0=pictures(2 * CHUNK + 100))
    paths = [tmp_path / f"{part}.safetensors" for part in range(4)]          # one of the four has nothing to do
    for part, path in enumerate(paths):
        write_statistics(evaluator, images_of(open_images(theirs)), Shard(part, 4), None, path)
    write_statistics(evaluator, images_of(open_images(theirs)), WHOLE, None, tmp_path / "whole.safetensors")
    whole = evaluate(evaluator, added([tmp_path / "whole.safetensors"], "cpu"), data)
    assert numbers(evaluate(evaluator, added(paths[::-1], "cpu"), data)) == pytest.approx(numbers(whole), rel=1e-9)
    with pytest.raises(StatisticsError, match=f"100 of {2 * CHUNK + 100} images are missing, the first is number {2 * CHUNK}"):
        evaluate(evaluator, added(paths[:-1], "cpu"), data)
    with pytest.raises(MeasureError, match=r"3\.safetensors: 100 of its images are in .*3\.safetensors, too, the first is num"):
        added([*paths, paths[-1]], "cpu")
    write_statistics(evaluator, images_of(open_images(theirs)), Shard(1, 2), None, tmp_path / "half.safetensors")
    with pytest.raises(MeasureError, match=rf"half\.safetensors: {CHUNK} of its images are in .*2\.safetensors, too"):
        added([*paths[:3], tmp_path / "half.safetensors"], "cpu")


@pytest.fixture(params=["samples", "reconstructions"])
def subject(request, made, tmp_path):
    """Options that name more than one chunk of images, straight from the models."""
    models = ["--tokenizer", made / "tokenizer"]
    if request.param == "samples":
        write_json(tmp_path / "guidance.json", {"chosen": {"schedule": "linear", "scale": 2.0, "start": 0.0}})
        return [*models, "--generator", made / "generator", "--guidance", tmp_path / "guidance.json", "--set",
                f"evaluation.samples_per_class={CHUNK // 10 + 1}"]
    np.savez(tmp_path / "originals.npz", arr_0=pictures(CHUNK + 8))
    return [*models, "--originals", tmp_path / "originals.npz"]


def alike(one, two):
    """Whether two results say the same, but for the last digits of their numbers."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(alike, one, two))
    return one == (pytest.approx(two, rel=1e-9, abs=1e-12) if isinstance(one, float) else two)


def test_a_result_in_parts_says_what_one_in_one_piece_says_of_the_same_images(command, made, tmp_path, subject):
    common = ["--params", "params/demo.yaml", "--classifier", made / "classifier"]
    against, state = ["--reference", made / "data"], ["--state", tmp_path / "runs/state.safetensors"]
    parts = [tmp_path / f"{part}.safetensors" for part in range(2)]
    samples = [word for path in parts[::-1] for word in ("--samples", path)]
    one = ["--out", tmp_path / "whole.json", "--statistics", tmp_path / "w.safetensors"]
    calls = [["evaluate", *common, *subject, *against, *one],
             *(["statistics", *common, *subject, *state, "--part", f"{i}/2", "--out", path] for i, path in enumerate(parts)),
             ["statistics", *common, *samples, "--out", tmp_path / "p.safetensors"],
             ["evaluate", *common, *samples, *against, "--out", tmp_path / "alone.json"],
             ["evaluate", *common, *samples, *subject, *against, *state, "--out", tmp_path / "parts.json"]]
    for call in calls:
        result = command(*map(str, call))
        assert result.exit_code == 0, result.stderr
    whole, parts, alone = (json.loads((tmp_path / f"{name}.json").read_text()) | {"digest": "of all digits", "made": []}
                           for name in ("whole", "parts", "alone"))
    assert len(numbers(whole)) > 8 and alike(whole, parts)
    unknown = dict.fromkeys(("seed", "settings"))                                # to whoever has the parts alone
    assert alike(whole | unknown, alone | unknown)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["state.json"]              # the parts' own are gone
    whole, summed = (Statistics.load(tmp_path / f"{name}.safetensors") for name in "wp")
    for name, tensor in whole.tensors.items():
        if name.startswith(OF_ORDER):
            torch.testing.assert_close(summed.tensors[name], tensor, rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(summed.tensors[name], tensor), name                              # of the features, every bit
    assert whole.facts == summed.facts and len(whole.kept) == whole.n


def test_a_part_of_something_else_is_named(command, made, tmp_path, subject):
    common = ["--params", "params/demo.yaml", "--classifier", made / "classifier"]
    foreign, against = tmp_path / "foreign.safetensors", ["--reference", made / "data", "--out", tmp_path / "r.json"]
    other = ["--seed", 5] if "--generator" in subject else ["--set", "evaluation.batch_size=100"]
    assert command(*map(str, ["statistics", *common, *subject, *other, "--out", foreign])).exit_code == 0
    result = command(*map(str, ["evaluate", *common, *subject, "--samples", foreign, *against]))
    assert result.exit_code == 1 and "foreign.safetensors: not a part of what is measured; " in result.stderr, result.stderr
    assert not (tmp_path / "r.json").exists()


def test_a_part_that_was_killed_goes_on_from_its_last_save(made, tmp_path):
    np.savez(tmp_path / "many.npz", arr_0=pictures(60 * CHUNK))
    state, out = tmp_path / "runs/state.part1of2.safetensors", tmp_path / "1.safetensors"
    command = [str(Path(sys.executable).with_name("restok")), "statistics", "--params", "params/demo.yaml", "--classifier",
               made / "classifier", "--samples", tmp_path / "many.npz", "--set", "evaluation.save_every=1", "--part", "1/2",
               "--state", tmp_path / "runs/state.safetensors", "--out", out]
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE) as process:
        while not state.exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL and not out.exists()
    begun = Statistics.load(state).seen.nonzero().flatten()
    assert begun[0] == 30 * CHUNK and len(begun) % CHUNK == 0
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and f"goes on from image {begun[-1] + 1} of {60 * CHUNK}" in done.stderr, done.stderr
    resumed = Statistics.load(out)
    at_once = evaluator_of(made).statistics(images_of(open_images(tmp_path / "many.npz")), None, Shard(1, 2))
    for name, tensor in at_once.tensors.items():
        assert torch.equal(resumed.tensors[name], tensor), name
