"""Metrics: closed forms, independent definitions, and what each result must carry and refuse."""

import json
import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from restok import config
from restok.metrics.codebook import code_counts, codebook_metrics
from restok.metrics.evaluate import evaluate_generation, evaluate_reconstruction
from restok.metrics.features import FeatureNetwork, extract, full_precision, load_features, metric_names
from restok.metrics.frechet import Moments, frechet_distance
from restok.metrics.inception_score import inception_score
from restok.metrics.precision_recall import precision_recall
from restok.metrics.reconstruction import psnr, psnr_ceiling, ssim
from restok.nn.classifier import SmallClassifier


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n, dims, seed):
    return draw(n, dims, seed=seed) @ draw(dims, dims, seed=99) + 3


# Frechet distance

def test_distance_of_a_set_to_itself_is_zero():
    moments = Moments.of(correlated(200, 24, seed=0))
    assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-6)


def test_distance_of_a_shift_is_its_squared_length():
    x, shift = correlated(200, 24, seed=0), draw(24, seed=1)
    assert frechet_distance(Moments.of(x), Moments.of(x + shift)) == pytest.approx(shift.square().sum().item(), rel=1e-6)


def test_distance_of_diagonal_gaussians_has_its_closed_form():
    mean_a, mean_b, a, b = (draw(8, seed=i).abs() for i in range(4))
    expected = (mean_a - mean_b).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance((mean_a, a.diag()), (mean_b, b.diag())) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("n", [300, 12])     # 12 samples of 24 dimensions: the covariance is singular
def test_distance_agrees_with_torch_fidelity(n):
    a, b = correlated(n, 24, seed=0), correlated(n, 24, seed=1) * 1.3
    theirs = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


def test_moments_are_those_of_numpy_whatever_the_batches_and_their_order():
    x = correlated(101, 6, seed=0) + 1e4
    shards = []
    for rows in (slice(0, 40), slice(40, 41), slice(41, 101)):
        shards.append(Moments(shift=torch.full((6,), 1e4)))
        shards[-1].update(x[rows])
    first, second, third = shards
    for merged in (first + second + third, third + (first + second)):
        np.testing.assert_allclose(merged.mean, x.numpy().mean(0), rtol=1e-12)
        np.testing.assert_allclose(merged.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-9)
    assert first.n == 40      # adding makes a new state


def test_moments_refuse_what_they_cannot_add():
    with pytest.raises(ValueError, match="shift"):
        Moments(torch.zeros(3)) + Moments(torch.ones(3))
    with pytest.raises(ValueError, match="3 dimensions"):
        Moments(torch.zeros(3)).update(draw(5, 4))
    with pytest.raises(ValueError, match="NaN"):
        Moments(torch.zeros(1)).update(torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match="1 samples"):
        _ = Moments.of(draw(1, 3)).covariance


def test_distance_refuses_what_is_no_pair_of_gaussians():
    good = Moments.of(draw(20, 3))
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        frechet_distance(good, Moments.of(draw(20, 4)))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(good, (torch.zeros(3), torch.full((3, 3), math.nan)))
    indefinite = torch.zeros(3), torch.diag(torch.tensor([1.0, 1.0, -0.1]))
    for pair in ((good, indefinite), (indefinite, good)):
        with pytest.raises(ValueError, match="negative eigenvalues"):
            frechet_distance(*pair)
    with pytest.raises(ValueError, match="not symmetric"):
        frechet_distance(good, (torch.zeros(3), torch.eye(3) + torch.ones(3, 3).triu(1)))


# Inception score

def test_score_of_uninformative_images_is_one_and_of_sure_and_even_ones_is_k():
    assert inception_score(torch.zeros(20, 10)) == pytest.approx(1)
    assert inception_score(1e4 * torch.eye(10).repeat(3, 1)) == pytest.approx(10)


def test_score_in_contiguous_splits_agrees_with_torch_fidelity_and_collapses_when_sorted():
    logits = 4 * draw(90, 10)
    theirs = isc_features_to_metric(logits, splits=3, shuffle=False)["inception_score_mean"]
    assert inception_score(logits, splits=3) == pytest.approx(theirs, rel=1e-9)
    in_order = 1e4 * torch.eye(10).repeat_interleave(3, 0)
    assert inception_score(in_order, splits=10) == pytest.approx(1)


def test_score_refuses_nan_and_empty_splits():
    with pytest.raises(ValueError, match="NaN"):
        inception_score(torch.full((4, 3), math.nan))
    with pytest.raises(ValueError, match="5 splits of 4"):
        inception_score(torch.zeros(4, 3), splits=5)


# Precision and recall

def test_identical_sets_have_full_precision_and_recall_even_with_duplicates():
    x = correlated(50, 16, seed=0).repeat(5, 1) + 100     # more copies than neighbours: radii are zero
    assert precision_recall(x, x.flip(0), neighbours=3) == (1, 1)


def test_disjoint_sets_have_none():
    assert precision_recall(draw(40, 8), draw(40, 8, seed=1) + 100, neighbours=3) == (0, 0)


def test_mode_collapse_has_high_precision_and_low_recall():
    references = torch.cat([draw(50, 4), draw(50, 4, seed=1) + 50])
    precision, recall = precision_recall(draw(60, 4, seed=2) * 0.5, references, neighbours=3)
    assert precision > 0.9 and recall <= 0.5


def test_precision_and_recall_agree_with_torch_fidelity_in_any_chunks(monkeypatch):
    samples, references = correlated(70, 5, seed=0) * 0.8, correlated(90, 5, seed=1)
    expected = calculate_precision_recall_full(samples, references, neighborhood=3)
    assert 0 < min(expected) and max(expected) < 1
    assert precision_recall(samples, references, neighbours=3) == pytest.approx(expected)
    monkeypatch.setattr("restok.metrics.precision_recall.CHUNK", 1000)
    assert precision_recall(samples, references, neighbours=3) == pytest.approx(expected)


def test_precision_refuses_too_few_points_other_widths_and_nan():
    with pytest.raises(ValueError, match="3 samples have no 3 neighbours"):
        precision_recall(draw(3, 2), draw(9, 2), neighbours=3)
    with pytest.raises(ValueError, match="2 and 4 dimensions"):
        precision_recall(draw(9, 2), draw(9, 4), neighbours=3)
    with pytest.raises(ValueError, match="references hold NaN"):
        precision_recall(draw(9, 2), draw(9, 2) * math.nan, neighbours=3)


# PSNR and SSIM

def test_psnr_of_a_known_offset():
    images = torch.full((2, 3, 8, 8), 0.5)
    offset = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(images, images + offset).tolist() == pytest.approx([20, 40], rel=1e-5)


def test_a_perfect_image_counts_as_one_that_is_off_by_one_level_in_one_number():
    image = torch.full((1, 3, 16, 16), 100 / 255, dtype=torch.float64)
    nearly = image.clone()
    nearly[0, 1, 2, 3] = 101 / 255
    assert psnr(image, image).item() == pytest.approx(psnr_ceiling(3 * 16 * 16))
    assert psnr(image, nearly).item() == pytest.approx(psnr_ceiling(3 * 16 * 16))


def test_ssim_of_an_image_to_itself_is_one():
    images = uniform(2, 3, 16, 20)
    assert ssim(images, images).tolist() == pytest.approx([1, 1])


def test_ssim_is_its_definition_window_by_window():
    x, y = uniform(1, 2, 12, 11), uniform(1, 2, 12, 11, seed=1)
    weights = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)])
    weights /= weights.sum()
    values = []
    for channel in range(2):
        for top in range(2):
            a, b = (image[0, channel, top:top + 11].numpy() for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            values.append((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
                          / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    assert ssim(x, y).item() == pytest.approx(np.mean(values), rel=1e-9)


def test_image_distances_refuse_small_images_and_other_shapes():
    with pytest.raises(ValueError, match="10x16 are smaller"):
        ssim(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))
    with pytest.raises(ValueError, match="twice the same"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))


# Codebook

def test_a_uniform_codebook_of_8192_has_13_bits_less_what_epsilon_takes():
    found = codebook_metrics(torch.arange(8192).view(64, 128), 8192, (128,))
    assert 13 - found["entropy"] == pytest.approx(1.18e-4, rel=0.01)
    assert (found["usage"], found["dead"], found["used"]) == (1, 0, 8192)
    assert found["perplexity"] == pytest.approx(8192, rel=1e-4)


def test_levels_are_described_one_by_one_and_pooled():
    codes = np.array([[0, 1, 2, 3], [0, 2, 2, 3], [0, 1, 3, 2], [0, 2, 3, 2]], dtype=np.uint16)
    found = codebook_metrics(codes, 8, (1, 1, 2))
    levels = found["levels"]
    found_levels = [[level[key] for key in ("level", "tokens", "used", "dead")] for level in levels]
    assert found_levels == [[1, 1, 1, 7], [2, 1, 2, 6], [3, 2, 2, 6]]
    assert [level["entropy"] for level in levels] == pytest.approx([0, 1, 1], abs=1e-6)
    p = np.array([4, 2, 6, 4]) / 16
    assert found["usage"] == 0.5 and found["entropy"] == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-6)
    halves = code_counts(codes[:1], 8, (1, 1, 2)) + code_counts(codes[1:], 8, (1, 1, 2))
    assert torch.equal(halves, code_counts(codes, 8, (1, 1, 2)))


def test_codebook_refuses_what_is_no_set_of_codes():
    codes = torch.zeros(3, 4, dtype=torch.int64)
    for bad, size, levels, message in ((codes + 8, 8, (4,), "outside a codebook of 8"), (codes - 1, 8, (4,), "outside"),
                                       (codes, 8, (1, 1), "levels of 2 tokens"), (codes.float(), 8, (4,), "integers"),
                                       (codes[:0], 8, (4,), "integers")):
        with pytest.raises(ValueError, match=message):
            codebook_metrics(bad, size, levels)


# Feature networks

def settings(**changes):
    fields = {"features": "digits", "weights": None, "samples_per_class": 2, "neighbours": 2, "batch_size": 8}
    return config.Evaluation(**fields | changes)


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(0)
    SmallClassifier(classes=4, channels=(4, 8)).save(tmp_path / "classifier")
    return tmp_path / "classifier"


def pictures(n, seed=0, side=16):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_only_inception_may_be_called_fid():
    assert metric_names("inception") == {"distance": "FID", "score": "IS"}
    assert metric_names("digits") == {"distance": "FD-digits", "score": "IS-digits"}


def test_classifier_features_are_its_own_and_do_not_depend_on_the_batch(classifier):
    from restok.nn.classifier import load_classifier
    network, images = load_features(settings(), classifier, "cpu"), pictures(5)
    features, logits = extract(network, images, batch_size=2)
    module, x = load_classifier(classifier), torch.tensor(images).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(features, module.pooled(x))
    torch.testing.assert_close(logits, module(x))
    assert (network.name, network.dims, len(network.sha256)) == ("digits classifier", 8, 64)


def test_features_are_computed_without_tf32_and_the_settings_come_back():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32 == before[1]
    finally:
        torch.set_float32_matmul_precision(before[0])


def test_missing_weights_are_named_with_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="restok train-classifier"):
        load_features(settings(), None)
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth.*evaluation.weights"):
        load_features(settings(features="inception", weights=str(tmp_path / "nowhere.pth")), None)

    def offline(*args, **kwargs):
        raise OSError("no route to host")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match=r"weights-inception-2015-12-05-6726825d\.pth.*evaluation\.weights"):
        load_features(settings(features="inception"), None)


def test_foreign_inception_weights_are_refused_by_name(tmp_path):
    torch.save({"features.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: not the weights of weights-inception"):
        load_features(settings(features="inception", weights=str(tmp_path / "other.pth")), None)


# The two protocols

REFERENCE = {"name": "validation", "digest": "abc"}


def first_pixel_network(dims=3, knows_labels=True, kind="digits"):
    """Features: the image's mean colours. Logits: sure of the class that the first pixel's red names, of 4."""
    def forward(images):
        return images.float().mean((2, 3)), 50 * torch.eye(4)[images[:, 0, 0, 0].long() % 4]
    return FeatureNetwork(kind, "first pixel", "f" * 64, dims, knows_labels, torch.device("cpu"), forward)


def reconstruct(samples, originals, labels, codes=None):
    codes = np.zeros((len(samples), 4), dtype=np.int64) if codes is None else codes
    return evaluate_reconstruction(samples, originals, labels, codes, (1, 1, 2), 8, first_pixel_network(), REFERENCE, 3)


def generate(samples, labels, references, network=None):
    return evaluate_generation(samples, labels, references, network or first_pixel_network(), 2, REFERENCE, batch_size=3)


def test_perfect_reconstructions():
    images = pictures(40)
    labels = images[:, 0, 0, 0] % 4
    result = reconstruct(images, images, labels)
    metrics = result["metrics"]
    assert metrics["FD-digits"] == pytest.approx(0, abs=1e-6) and metrics["class_accuracy"] == 1
    assert metrics["psnr"] == pytest.approx(psnr_ceiling(768)) and metrics["ssim"] == pytest.approx(1)
    assert metrics["codebook"]["dead"] == 7
    assert any("40 of 40 reconstructions are perfect" in warning for warning in result["warnings"])
    nearly = images.copy()
    nearly[0, 5, 5, 1] ^= 1
    assert any("39 of 40 reconstructions are perfect" in warning for warning in reconstruct(nearly, images, labels)["warnings"])


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
    assert (result["protocol"], result["n"], result["neighbours"], result["score_splits"]) == ("generation", 12, 2, 1)
    assert result["features"] == {"name": "first pixel", "sha256": "f" * 64, "dims": 3, "batch_size": 3}
    assert result["reference"] == REFERENCE | {"n": 9}
    assert (result["rounding"], result["torch"], result["device"]) == ("8 bit, rounded", torch.__version__, "cpu")
    assert set(result["metrics"]) == {"FD-digits", "IS-digits", "precision", "recall", "class_accuracy", "per_class_accuracy"}


def test_a_network_that_does_not_know_the_labels_judges_none():
    network = first_pixel_network(knows_labels=False, kind="inception")
    metrics = generate(pictures(8), np.arange(8) + 900, pictures(8, seed=1), network)["metrics"]
    assert metrics["class_accuracy"] is None and metrics["per_class_accuracy"] is None
    assert {"FID", "IS"} <= set(metrics)


def test_warnings_for_few_images_unbalanced_classes_and_sorted_samples(monkeypatch):
    images, even = pictures(40), np.repeat(np.arange(4), 10)
    assert generate(images, even, pictures(30, seed=1))["warnings"] == []
    (few,) = generate(images, even, pictures(29, seed=1))["warnings"]
    assert few.startswith("29 references are fewer than 10 x 3")
    (missing,) = generate(images, even % 3, images)["warnings"]
    assert "unbalanced: from 0 to 20" in missing
    monkeypatch.setattr("restok.metrics.evaluate.SPLIT", 10)
    (in_order,) = generate(images, even, images)["warnings"]
    assert "sorted by class" in in_order
    assert generate(images, np.arange(40) % 4, images)["warnings"] == []


def test_the_score_of_samples_is_taken_over_splits_in_order(monkeypatch):
    monkeypatch.setattr("restok.metrics.evaluate.SPLIT", 10)
    images, labels = pictures(40), np.repeat(np.arange(4), 10)
    images[:, 0, 0, 0] = labels
    mixed = np.arange(40).reshape(4, 10).T.flatten()       # 0, 10, 20, 30, 1, ...: every class in every split
    assert generate(images, labels, images)["metrics"]["IS-digits"] == pytest.approx(1)
    assert generate(images[mixed], labels[mixed], images)["metrics"]["IS-digits"] > 3.9


def test_the_protocols_refuse_arrays_that_do_not_fit():
    images, labels = pictures(8), np.arange(8) % 4
    for arguments, message in (((images / 255, labels, images), "samples: float64, not uint8"),
                               ((images, labels, images[..., :1]), "references: shape .* expected n h w 3"),
                               ((images[:1], labels[:1], images), "samples: 1 images"),
                               ((images, labels[:5], images), "labels: .* expected 8 integers"),
                               ((images, labels + 1, images), "labels from 1 to 4.* knows 4 classes"),
                               ((images, labels, pictures(8, side=20)), "crop both to one size")):
        with pytest.raises(ValueError, match=message):
            generate(*arguments)
    with pytest.raises(ValueError, match="image by image"):
        reconstruct(images, images[:7], labels)
    with pytest.raises(ValueError, match="image by image"):
        reconstruct(images, images, labels, codes=np.zeros((7, 4), dtype=np.int64))


def test_nan_features_are_refused_by_the_name_of_their_network():
    def forward(images):
        return images.float().mean((2, 3)) * math.nan, images.float().mean((2, 3))
    network = FeatureNetwork("digits", "broken", "0", 3, True, torch.device("cpu"), forward)
    with pytest.raises(ValueError, match="broken: NaN"):
        generate(pictures(8), np.arange(8) % 3, pictures(8), network)
