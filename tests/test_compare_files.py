"""`restok compare A.json B.json`: results of any images side by side, and which differences are larger than chance."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from restok.config.load import ConfigError, load_protocol
from restok.data.images import open_images
from restok.files import FileError
from restok.metrics import features
from restok.metrics.features import JUDGES
from restok.metrics.results import ComparisonError
from restok.networks.inception import Features
from restok.reporting.files import compare_files
from restok.stages.evaluator import Evaluator
from restok.stages.measure import evaluate
from restok.stages.subjects import images_of, reconstructions_of


class Few(torch.nn.Module):
    """Six colours of an image, in Inception's place."""

    dims, spatial, classes = 6, 0, 0

    def forward(self, images):
        return Features(images.flatten(1)[:, :6].float() / 255, None, None)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(features.JUDGES, "inception", JUDGES["inception"]._replace(load=lambda *_: (Few(), "1" * 64)))


def measured(name, n=400, seed=0, least=0, reference="reference", originals=None):
    """The result, `name`.json, of pictures whose colours go from `least` to 255."""
    pictures = np.random.default_rng(seed).integers(least, 256, size=(n, 12, 12, 3), dtype=np.uint8)
    np.savez(f"{name}.npz", arr_0=pictures)
    evaluator = Evaluator.load(load_protocol(["evaluation.lpips=false"]), None, None, 0, originals is not None)
    subject = images_of(open_images(Path(f"{name}.npz")))
    if originals:
        subject = reconstructions_of(open_images(Path(f"{name}.npz")), open_images(Path(originals)), Path(f"{name}.npz"), None)
    evaluate(evaluator, subject, Path(f"{reference}.npz"), Path(f"{name}.json"))
    return Path(f"{name}.json")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """What is near to the reference, what is far from it, and what is as near."""
    monkeypatch.chdir(tmp_path)
    for name in ("reference", "other"):
        np.savez(f"{name}.npz", arr_0=np.random.default_rng(len(name)).integers(256, size=(400, 12, 12, 3), dtype=np.uint8))
    return [measured("near", seed=1), measured("far", seed=2, least=60), measured("again", seed=3)]


def test_what_is_larger_than_chance_is_said(results):
    found = {one.name: one for one in compare_files(results)}
    for name in ("FID", "KID", "MIND"):
        first, far, again = found[name].against
        assert first is None and far.verdict == "worse" and far.difference > 0 and again.verdict == "undecided", name
    assert found["FID"].lower and not found["precision"].lower
    assert all(one.measures[0].low <= one.measures[0].value for one in found.values() if one.measures[0].low is not None)


def test_the_verb_shows_them_with_what_its_words_mean(results, command):
    shown = command("compare", *results)
    assert shown.exit_code == 0, shown.output
    for text in ("near.json", "FID ↓", "worse: than near.json, by 95 % intervals that do not overlap",
                 "chance may be the reason", "Not measured: generation sFID"):
        assert text in " ".join(shown.output.split()), text
    told = json.loads(command("compare", "--json", *results).stdout)
    values = {one["name"]: one["values"] for one in told["metrics"]}
    assert told["results"] == ["near.json", "far.json", "again.json"]
    assert values["FID"][1]["against_first"]["verdict"] == "worse" and "no classifier" in values["IS"][0]["refused"]


def test_a_result_beside_itself_elsewhere_is_equal(results):
    Path("copy.json").write_bytes(results[0].read_bytes())
    found = compare_files([results[0], Path("copy.json")])
    assert {one.against[1].verdict for one in found if one.known} == {"equal"}


def test_reconstructions_compare_in_what_belongs_to_them(results):
    one, other = (measured(name, seed=seed, reference="near", originals="near.npz") for name, seed in (("r1", 1), ("r2", 5)))
    found = {each.name: each for each in compare_files([one, other])}
    assert found["psnr"].against[1].verdict == "worse"                   # the first are the originals themselves
    assert found["rFID"].of == "reconstruction"
    with pytest.raises(ComparisonError, match="protocol differ"):
        compare_files([results[0], one])


def test_what_does_not_compare_is_refused_by_name(results):
    with pytest.raises(ComparisonError, match=r"different numbers of images.*near\.json 400, few\.json 40"):
        compare_files([results[0], measured("few", 40)])
    with pytest.raises(ComparisonError, match=r"near\.json and else\.json do not compare: reference digest differ"):
        compare_files([results[0], measured("else", reference="other")])
    with pytest.raises(ConfigError, match=r"near\.json: named twice"):
        compare_files([results[0], results[0]])
    Path("none.json").write_text("{}")
    with pytest.raises(FileError, match=r"none\.json: "):
        compare_files([results[0], Path("none.json")])


def test_what_a_result_refused_keeps_its_reason(results):
    """A tokenizer's codes are known of the one, and not of the other."""
    one = json.loads(results[0].read_text())
    described = {"used": 4, "usage": 0.5, "dead": 4, "entropy": 1.5, "perplexity": 2.0}
    unsure = {name: None for name in described if name != "used"}
    one["metrics"]["codebook"] = described | {"levels": [described | {"level": 1, "tokens": 1}]}
    one["intervals"]["codebook"] = unsure | {"levels": [unsure]}
    Path("with.json").write_text(json.dumps(one))
    other = one | {"metrics": one["metrics"] | {"codebook": None}, "intervals": one["intervals"] | {"codebook": None},
                   "refused": one["refused"] | {"codebook": "the codes were not given"}}
    Path("without.json").write_text(json.dumps(other))
    found = {each.name: each for each in compare_files([Path("with.json"), Path("without.json")])}
    assert found["codebook entropy"].refused == ("", "the codes were not given")
    assert "codebook" not in found and "per_class_accuracy" not in found


def test_options_of_rows_are_refused_with_files(results, command):
    refused = command("compare", *results, "--item", "table2")
    assert refused.exit_code == 1 and "only --json goes with them" in refused.output


def test_a_metric_that_one_was_not_measured_by_is_said(results):
    result = json.loads(results[1].read_text())
    del result["metrics"]["MIND"], result["intervals"]["MIND"]
    Path("older.json").write_text(json.dumps(result))
    found = {one.name: one for one in compare_files([results[0], Path("older.json")])}
    assert found["MIND"].refused == ("", "was not measured") and found["MIND"].against[1] is None
