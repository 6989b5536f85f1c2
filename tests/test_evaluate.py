"""The two protocols: what each result must carry, refuse and warn of."""

import io
import json
import math
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from restok.cli.evaluate import print_result
from restok.config.load import load_protocol
from restok.experiments.results import Result
from restok.files.loading import checked
from restok.metrics import comparison, inception_score
from restok.metrics.evaluate import evaluate_generation, evaluate_reconstruction
from restok.metrics.features import FeatureNetwork, Features
from restok.metrics.frechet import Gaussian
from restok.metrics.reconstruction import psnr_ceiling, similarity
from restok.metrics.results import ComparisonError, average, require_comparable
from restok.metrics.statistics import Statistics, StatisticsError

SETTINGS = load_protocol(["evaluation.features=digits", "evaluation.neighbours=2"])


def pictures(n, seed=0, side=16):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def network(kind="digits", sha256="f" * 64, classes=4):
    """Features: the image's mean colours. Logits: sure of the class that the first pixel's red names, of 4."""
    def forward(images):
        logits = 50 * torch.eye(4)[images[:, 0, 0, 0].long() % 4] if classes else None
        features = images.float().mean((2, 3))
        return Features(features, features[:, :2] if kind == "inception" else None, logits)
    spatial, knows = (2, False) if kind == "inception" else (0, True)
    return FeatureNetwork(kind, "first pixel", sha256, 3, spatial, classes, knows, "none", 0.0, torch.device("cpu"), forward)


def measured(images, labels=None, originals=None, codes=None, using=None, name="set", n=None):
    """The statistics of images under `network`."""
    using = using or network()
    facts = {"name": name, "digest": name, "n": n or len(images), "size": list(images.shape[1:3]), "rounding": "as stored",
             "originals": None if originals is None else {"name": "originals", "digest": "o"}, "in_order": False}
    likeness = None if originals is None else similarity(images, originals, None, "cpu") | {
        "perfect": torch.from_numpy((images == originals).all((1, 2, 3)))}
    state = Statistics.begin(using, facts, 8, classes=4 if labels is not None else 0, likeness=dict.fromkeys(likeness or {}),
                             levels=(1, 1, 2) if codes is not None else (), codebook_size=0 if codes is None else 8)
    state.update(0, using(images), labels, likeness, codes)
    return state


def reconstruct(images, originals, labels, codes=None):
    codes = torch.zeros(len(images), 4, dtype=torch.int64) if codes is None else codes
    return evaluate_reconstruction(measured(images, labels, originals, codes), measured(originals), SETTINGS)


def generate(images, labels, references, using=None, settings=SETTINGS):
    return evaluate_generation(measured(images, labels, using=using), measured(references, using=using, name="ref"), settings)


def test_perfect_reconstructions():
    images = pictures(40)
    result = reconstruct(images, images, images[:, 0, 0, 0] % 4)
    metrics = result["metrics"]
    assert metrics["rFD-digits"] == pytest.approx(0, abs=1e-6) and metrics["class_accuracy"] == 1
    assert metrics["psnr"] == pytest.approx(psnr_ceiling(768)) and metrics["ssim"] == pytest.approx(1)
    assert metrics["codebook"]["dead"] == 7
    assert any("40 of 40 reconstructions are perfect" in warning for warning in result["warnings"])
    nearly = images.copy()
    nearly[0, 5, 5, 1] ^= 1
    found = reconstruct(nearly, images, images[:, 0, 0, 0] % 4)
    assert any("39 of 40 reconstructions are perfect" in warning for warning in found["warnings"])


def test_every_value_has_an_interval_around_it_or_the_reason_why_it_is_missing():
    images, originals = pictures(200), pictures(200, seed=1)
    codes = torch.randint(8, (200, 4), generator=torch.Generator().manual_seed(0))
    for result in (reconstruct(images, originals, np.arange(200) % 4, codes), generate(images, np.arange(200) % 4, originals)):
        assert result["intervals"].keys() == result["metrics"].keys()
        for name, value in result["metrics"].items():
            if isinstance(value, float):
                low, high = result["intervals"][name]
                assert low <= value <= high and (low < high or name == "IS-digits"), name
            elif value is None:
                assert result["refused"][name]
    codebook = reconstruct(images, originals, np.arange(200) % 4, codes)["intervals"]["codebook"]
    assert all(low < high for low, high in (codebook["entropy"], codebook["perplexity"]))
    assert codebook["usage"] == [1, 1] and [len(level) for level in codebook["levels"]] == [4, 4, 4]


BOUNDS = {"rFD-digits": (0, math.inf), "MIND-digits": (0, math.inf), "IS-digits": (1, 4), "IS-digits ADM splits": (1, 4),
          "IS-digits ten shuffled": (1, 4), "class_accuracy": (0, 1), "psnr": (0, psnr_ceiling(768)), "ssim": (-1, 1),
          "usage": (0, 1), "dead": (0, 8), "entropy": (0, 3), "perplexity": (1, 8)}


def test_values_at_their_bounds_lie_in_their_intervals_and_both_within_the_bounds():
    """Equal images, perfectly reconstructed with one code, and others of which a few are perfect."""
    equal, others = np.repeat(pictures(1), 60, axis=0), pictures(60, seed=1)
    nearly = others.copy()
    nearly[1:, 0, 0, 1] ^= 1
    for images, originals in ((equal, equal), (others, others), (nearly, others)):
        result = reconstruct(images, originals, np.full(60, images[0, 0, 0, 0] % 4))
        codebook, intervals = result["metrics"].pop("codebook"), result["intervals"].pop("codebook")
        measured = [(name, value, result["intervals"][name]) for name, value in result["metrics"].items() if value is not None]
        levels = [(codebook, intervals), *zip(codebook["levels"], intervals["levels"], strict=True)]
        measured += [(name, described[name], bounds[name]) for described, bounds in levels
                     for name in ("usage", "dead", "entropy", "perplexity")]
        assert {name for name, *_ in measured} == {*BOUNDS, "KD-digits"}
        for name, value, (low, high) in measured:
            least, most = BOUNDS.get(name, (-math.inf, math.inf))
            assert least <= low <= value <= high <= most, name


def finite(result):
    """The metrics that were measured: each is finite, and lies in its interval, if it has one; all others have a reason."""
    found = {name: value for name, value in result["metrics"].items() if isinstance(value, float)}
    for name, value in found.items():
        low, high = result["intervals"][name] or (value, value)
        assert math.isfinite(value) and low <= value <= high, name
    assert all(result["refused"][name] for name, value in result["metrics"].items() if value is None)
    return found


def test_one_image_has_what_one_image_can_have():
    one, label, codes = pictures(1), np.array([1]), torch.zeros(1, 4, dtype=torch.int64)
    generated = generate(one, label, pictures(40, seed=1))
    assert finite(generated).keys() == {"IS-digits", "IS-digits one split", "IS-digits ten shuffled", "class_accuracy"}
    assert generated["refused"]["FD-digits"].startswith("set (samples) is one image, and a covariance takes 2")
    against = generate(pictures(40), None, one)
    assert against["refused"]["FD-digits"].startswith("ref (reference) is one image") and "IS-digits" in finite(against)
    result = reconstruct(one, pictures(1, seed=1), label, codes)
    assert {"psnr", "ssim", "class_accuracy"} <= finite(result).keys() and result["metrics"]["rFD-digits"] is None
    assert result["metrics"]["codebook"]["entropy"] == 0 and result["intervals"]["codebook"]["entropy"] is None
    assert not any("one code" in warning for warning in result["warnings"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_images_too_small_for_a_metric_have_the_others():
    result = reconstruct(pictures(40, side=8), pictures(40, seed=1, side=8), np.arange(40) % 4)
    assert {"rFD-digits", "KD-digits", "psnr"} <= finite(result).keys()
    assert "11 pixels" in result["refused"]["ssim"] and "176 pixels" in result["refused"]["ms_ssim"]


def test_a_collapsed_generator_is_measured():
    """One image many times, with more images than features: what is left of the covariance is rounding."""
    equal, references = np.repeat(pictures(1), 60, axis=0), pictures(60, seed=1)
    result = generate(equal, np.arange(60) % 4, references)
    a, b = (x.reshape(60, -1, 3).mean(1) for x in (equal, references))
    expected = np.square(a.mean(0) - b.mean(0)).sum() + b.var(0, ddof=1).sum()
    assert finite(result)["FD-digits"] == pytest.approx(expected, rel=1e-4) and result["refused"] == {}
    reversed_ = generate(references, np.arange(60) % 4, equal)
    assert finite(reversed_)["FD-digits"] == pytest.approx(expected, rel=1e-4)


def test_a_distance_of_no_gaussian_is_not_measured_and_the_rest_stands():
    samples, reference = measured(pictures(40)), measured(pictures(40, seed=1))
    reference.published = {"pooled": Gaussian(torch.zeros(3).double(), torch.diag(torch.tensor([1.0, 1.0, -0.1]).double()))}
    result = evaluate_generation(samples, reference, SETTINGS)
    assert "not a covariance" in result["refused"]["FD-digits"]
    assert {"KD-digits", "IS-digits", "recall"} <= finite(result).keys()


def test_levels_of_one_code_are_warned_of():
    codes = torch.zeros(40, 4, dtype=torch.int64)
    codes[:, 1] = torch.arange(40) % 8
    (warning,) = (text for text in reconstruct(pictures(40), pictures(40, seed=1), np.arange(40) % 4, codes)["warnings"]
                  if "one code" in text)
    assert warning.startswith("of the codebook's 3 levels, 1, 3 used one code for all images")


def test_accuracy_is_the_share_that_shows_its_label():
    images, labels = pictures(8), np.repeat(np.arange(4), 2)
    images[:, 0, 0, 0] = labels
    images[0, 0, 0, 0], images[2:4, 0, 0, 0] = 1, 2      # one of class 0 and both of class 1 miss
    metrics = generate(images, labels, pictures(8, seed=1))["metrics"]
    assert metrics["class_accuracy"] == 5 / 8 and metrics["per_class_accuracy"] == [0.5, 0, 1, 1]
    assert reconstruct(images, images, labels)["metrics"]["class_accuracy"] == 5 / 8


def test_the_result_carries_what_a_comparison_needs_and_is_json():
    result = generate(pictures(12), np.arange(12) % 4, pictures(9, seed=1))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["protocol"], result["n"], result["neighbours"]) == ("generation", 12, 2)
    assert result["features"] == {"kind": "digits", "name": "first pixel", "sha256": "f" * 64, "dims": 3, "resize": "none",
                                  "batch_size": 8}
    assert result["reference"] == {"name": "ref", "digest": "ref", "n": 9, "size": [16, 16], "rounding": "as stored",
                                   "published": [], "compared": 9}
    assert result["samples"]["balanced"] is True and result["rounding"] == "as stored"
    assert {"FD-digits", "KD-digits", "IS-digits", "precision", "recall", "precision adm-fp16"} <= set(result["metrics"])


@pytest.mark.parametrize("n", [1, 2, 12])
def test_every_result_fits_what_its_readers_check(n):
    images, labels, codes = pictures(n), np.arange(n) % 4, torch.arange(4 * n).reshape(n, 4) % 4
    for found in (generate(images, labels, pictures(n, seed=1)), reconstruct(pictures(n, seed=2), images, labels, codes)):
        assert checked(json.loads(json.dumps(found)), Result).n == n


def test_names_that_are_no_text_or_look_like_markup_are_shown(monkeypatch):
    result = generate(pictures(12), np.arange(12) % 4, pictures(9, seed=1))
    for name in ("[/red]folder", os.fsdecode(b"caf\xe9")):
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "utf-8", sys.__stderr__.errors))
        print_result(result | {"samples": result["samples"] | {"name": name}})
        sys.stderr.flush()
        assert name.encode("utf-8", "backslashreplace") in sys.stderr.buffer.getvalue()


def test_inceptions_metrics_bear_the_fields_names_and_judge_no_labels():
    result = generate(pictures(40), np.arange(40) % 4, pictures(40, seed=1), network("inception"))
    assert {"FID", "sFID", "KID", "IS", "IS one split", "IS ten shuffled"} <= set(result["metrics"])
    assert result["metrics"]["class_accuracy"] is None and "trained on other classes" in result["refused"]["class_accuracy"]
    assert any("does not compare with the paper's, which is over 50000" in warning for warning in result["warnings"])


def test_weights_without_a_classifier_have_no_score():
    result = generate(pictures(40), np.arange(40) % 4, pictures(40, seed=1), network("inception", classes=0))
    assert result["metrics"]["IS"] is None and "no classifier" in result["refused"]["IS one split"]
    assert result["metrics"]["FID"] > 0


def test_warnings_for_few_images_and_unbalanced_classes():
    images, even = pictures(40), np.arange(40) % 4
    assert generate(images, even, pictures(30, seed=1))["warnings"] == []
    (few,) = generate(images, even, pictures(29, seed=1))["warnings"]
    assert few.startswith("29 references are fewer than 10 x 3")
    found = generate(images, even % 3, images)
    assert "unbalanced: from 0 to 20" in found["warnings"][0] and found["samples"]["balanced"] is False


def test_a_split_score_of_samples_sorted_by_class_is_refused(monkeypatch):
    monkeypatch.setattr(inception_score, "SPLIT", 10)
    monkeypatch.setattr(comparison, "SPLIT", 10)
    images, labels = pictures(40), np.repeat(np.arange(4), 10)
    images[:, 0, 0, 0] = labels
    mixed = np.arange(40).reshape(4, 10).T.flatten()       # 0, 10, 20, 30, 1, ...: every class in every split
    in_order, shuffled = (generate(images[order], labels[order], images) for order in (np.arange(40), mixed))
    assert in_order["metrics"]["IS-digits"] is None and "sorted by class" in in_order["refused"]["IS-digits"]
    assert in_order["metrics"]["IS-digits one split"] == pytest.approx(4)
    assert shuffled["metrics"]["IS-digits"] == pytest.approx(4, rel=0.05)
    uneven = generate(images[mixed][:35], labels[mixed][:35], images)
    assert any("the last split of IS-digits holds 5 images" in warning for warning in uneven["warnings"])


def test_a_reference_without_images_has_no_precision_and_no_kernel_distance():
    samples = measured(pictures(40), using=network("inception"))
    reference = Statistics.begin(network("inception"), {"name": "adm.npz", "digest": "d", "n": 0, "size": None,
                                                        "rounding": "unknown", "originals": None, "in_order": False}, 8)
    reference.published = {"pooled": measured(pictures(40, seed=1)).gaussian("pooled")}
    result = evaluate_generation(samples, reference, SETTINGS)
    assert result["metrics"]["FID"] > 0 and result["reference"]["published"] == ["pooled"]
    assert "adm.npz" in result["refused"]["sFID"] and "4 images" in result["refused"]["KID"]
    assert "without 'arr_0'" in result["refused"]["precision"] and result["metrics"]["recall adm-fp16"] is None
    assert "resized" not in str(result["warnings"])
    reference.facts["images"]["caution"] = "resized otherwise"
    assert "resized otherwise" in evaluate_generation(samples, reference, SETTINGS)["warnings"]


def test_sets_that_were_not_measured_alike_are_refused():
    samples = measured(pictures(8), name="ours.npz")
    theirs = measured(pictures(8), using=network(sha256="e" * 64), name="theirs")
    for other, message in ((theirs, r"ours.npz was measured with sha256 f+ .*theirs"),
                           (measured(pictures(8, side=20)), r"ours.npz has images of 16x16, set of 20x20")):
        with pytest.raises(ComparisonError, match=message):
            evaluate_generation(samples, other, SETTINGS)
    with pytest.raises(StatisticsError, match="1 of 9 images are missing"):
        evaluate_generation(measured(pictures(8), n=9), samples, SETTINGS)
    with pytest.raises(ComparisonError, match="published statistics are a reference"):
        samples.published = {"pooled": samples.gaussian("pooled")}
        evaluate_generation(samples, measured(pictures(8)), SETTINGS)


def test_nan_features_are_refused_by_the_name_of_their_network():
    broken = replace(network(), forward=lambda images: Features(torch.full((8, 3), math.nan), None, torch.zeros(8, 4)))
    with pytest.raises(ValueError, match="set, images 0 to 7, first pixel: features hold NaN"):
        measured(pictures(8), using=broken)


# Results beside each other

def write(path, **changes):
    result = generate(pictures(12, seed=changes.get("seed", 0)), np.arange(12) % 4, pictures(9, seed=9)) | {"seed": 0} | changes
    path.write_text(json.dumps(result))
    return path


def test_results_over_seeds_have_a_mean_and_a_deviation(tmp_path):
    paths = [write(tmp_path / f"{seed}.json", seed=seed) for seed in (1, 2, 3)]
    found, values = average(paths), [json.loads(path.read_text())["metrics"]["FD-digits"] for path in paths]
    assert found["seeds"] == [1, 2, 3] and found["n"] == 12
    centre, deviation, measured = np.mean(values), np.std(values, ddof=1), found["metrics"]["FD-digits"]
    half = 4.302653 * deviation / math.sqrt(3)              # Student's t with 2 degrees of freedom
    assert (measured["mean"], measured["deviation"]) == pytest.approx((centre, deviation))
    assert measured["interval"] == pytest.approx([centre - half, centre + half])
    assert set(found["dropped"]) == {"per_class_accuracy"}


@pytest.mark.parametrize(("changes", "message"), [
    ({"reference": {"digest": "another", "size": [16, 16]}}, "reference digest differ, ref and another"),
    ({"features": {"sha256": "e", "name": "first pixel", "resize": "none"}}, "features sha256 differ"),
    ({"protocol": "reconstruction"}, "protocol differ, generation and reconstruction"),
    ({"neighbours": 7}, "neighbours differ, 2 and 7"),
    ({"originals": {"digest": "o"}}, "originals digest differ, None and"),
    ({"seed": 0}, r"seeds \[0, 0\]"),
    ({"n": 50}, r"over \[12, 50\] images")])
def test_results_that_do_not_compare_are_refused_by_name(tmp_path, changes, message):
    paths = [write(tmp_path / "a.json"), write(tmp_path / "b.json", **{"seed": 1} | changes)]
    with pytest.raises(ComparisonError, match=message):
        average(paths)


def test_a_comparison_names_both_files():
    one = generate(pictures(12), np.arange(12) % 4, pictures(9, seed=1))
    other = one | {"reference": one["reference"] | {"digest": "another"}}
    require_comparable([("a.json", one), ("b.json", one)])
    with pytest.raises(ComparisonError, match=r"a\.json and c\.json do not compare: reference digest differ, ref and another"):
        require_comparable([("a.json", one), ("b.json", one), ("c.json", other)])
