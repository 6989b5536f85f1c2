"""The kernel distance: its definition, torch-fidelity's subsets, a published value, and an interval that covers."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from restok.metrics.kid import KID, kid, polynomial_mmd


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_estimate_is_its_definition_pair_by_pair():
    x, y = draw(5, 3), draw(4, 3, seed=1) + 0.5

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return sum((float(a[i] @ b[j]) / 3 + 1) ** 3 for i, j in pairs) / len(pairs)
    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert polynomial_mmd(x, y).item() == pytest.approx(expected, rel=1e-12)
    assert polynomial_mmd(x.float(), y.float()).dtype == torch.float64


def test_equal_sizes_give_torch_fidelitys_values():
    x, y = draw(90, 12).relu(), (1.2 * draw(70, 12, seed=1)).relu()
    theirs = kid_features_to_metric(x, y, kid_subset_size=30, kid_subsets=11, rng_seed=7, verbose=False)
    ours = kid(x, y, subset_size=30, subsets=11, seed=7)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)
    assert (ours.subset_size, ours.subsets) == (30, 11)


def test_a_set_of_fewer_than_two_subsets_gives_half_of_itself():
    x, y = draw(90, 4), draw(41, 4, seed=1)
    assert kid(x, y, subsets=3).subset_size == 20
    assert kid(y, x, subset_size=21, subsets=3).subset_size == 20
    assert kid(x, y, subset_size=20, subsets=3).subset_size == 20


def test_the_estimate_is_unbiased_at_any_size_and_the_interval_covers_the_value_19_times_in_20():
    population_x, population_y = draw(40, 3), 1.5 * draw(40, 3, seed=1) + 0.3

    def mean(a, b):
        return ((a @ b.T / 3 + 1) ** 3).mean()
    x, y = population_x, population_y
    truth = (mean(x, x) + mean(y, y) - 2 * mean(x, y)).item()      # of draws with replacement, which may be equal
    generator, found = torch.Generator().manual_seed(2), []
    for repeat in range(200):
        x, y = (points[torch.randint(40, (120,), generator=generator)] for points in (population_x, population_y))
        found.append(kid(x, y, subset_size=40, subsets=20, seed=repeat))
    values = torch.tensor([result.value for result in found])
    assert abs(values.mean() - truth) < 3 * values.std() / 200**0.5
    covered = sum(low <= truth <= high for low, high in (result.interval(120) for result in found))
    assert 0.9 < covered / 200 < 0.99


def test_the_interval_narrows_with_the_images_to_the_noise_of_the_subsets():
    result = KID(value=0.5, deviation=0.1, subset_size=100, subsets=25)
    low, high = result.interval(10**9)
    assert (low + high) / 2 == pytest.approx(0.5) and (high - low) / 2 == pytest.approx(1.96 * 0.1 / 5, rel=1e-4)
    low, high = result.interval(200)
    assert (high - low) / 2 == pytest.approx(1.96 * 0.1 * 1.04**0.5, rel=1e-4)
    with pytest.raises(ValueError, match="100 images are no more than a subset of 100"):
        result.interval(100)


def test_kid_refuses_too_few_points_other_widths_and_nan(unchecked):
    with pytest.raises(ValueError, match="3 samples and 9 references"):
        kid(draw(3, 2), draw(9, 2))
    with pytest.raises(ValueError, match="2 and 4 dimensions"):
        kid(draw(9, 2), draw(9, 4))
    with pytest.raises(ValueError, match="NaN"):
        kid(draw(9, 2), draw(9, 2) * math.nan)
    with pytest.raises(ValueError, match="1 and 9 points"):
        polynomial_mmd(draw(1, 2), draw(9, 2))


@pytest.mark.skipif("RESTOK_WEIGHTS" not in os.environ, reason="RESTOK_WEIGHTS names no folder of pretrained weights")
def test_the_published_example_of_torchmetrics_comes_out_to_every_digit(tmp_path):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    trunk = torch.load(Path(os.environ["RESTOK_WEIGHTS"]) / "fid_inception_2015_trunk.pth", weights_only=True)
    torch.save(trunk | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / "inception.pth")
    torch.manual_seed(42)       # before the network: the example's draws come after those of its first weights
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(tmp_path / "inception.pth"))
    images = [torch.randint(low, high, (100, 3, 299, 299), dtype=torch.uint8) for low, high in ((0, 200), (100, 255))]
    real, fake = (torch.cat([network(batch)[0] for batch in part.split(25)]) for part in images)
    values = torch.stack([polynomial_mmd(real[torch.randperm(100)[:50]], fake[torch.randperm(100)[:50]]) for _ in range(100)])
    # https://lightning.ai/docs/torchmetrics/stable/image/kernel_inception_distance.html
    assert (round(values.mean().item(), 4), round(values.std(correction=0).item(), 4)) == (0.0312, 0.0025)
