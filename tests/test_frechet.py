"""The Frechet distance: closed forms, another implementation, and sums that add."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from restok.metrics.frechet import Frechet, Gaussian, Moments
from restok.metrics.intervals import GROUPS, group_of, jackknife


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n, dims, seed):
    return draw(n, dims, seed=seed) @ draw(dims, dims, seed=99) + 3


def gaussian(features):
    moments = Moments(*features.shape, shift=features.double().mean().item())
    moments.update(0, features)
    return moments.gaussian()


def frechet_distance(a, b):
    return Frechet(b)(a)


@pytest.mark.parametrize("n", [200, 20])     # 20 images of 24 dimensions take the Gram route
def test_distance_of_a_set_to_itself_is_zero(n):
    x = correlated(n, 24, seed=0)
    assert frechet_distance(gaussian(x), gaussian(x)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [200, 20])
def test_distance_of_a_shift_is_its_squared_length(n):
    x, shift = correlated(n, 24, seed=0), draw(24, seed=1)
    assert frechet_distance(gaussian(x), gaussian(x + shift)) == pytest.approx(shift.square().sum().item(), rel=1e-5)


def test_distance_of_diagonal_gaussians_has_its_closed_form():
    mean_a, mean_b, a, b = (draw(8, seed=i).abs() for i in range(4))
    expected = (mean_a - mean_b).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(Gaussian(mean_a, a.diag()), Gaussian(mean_b, b.diag())) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(300, 280), (12, 18), (12, 300), (300, 12)])     # few images: singular covariances
def test_distance_agrees_with_torch_fidelity_by_every_route(n, m):
    a, b = correlated(n, 24, seed=0), correlated(m, 24, seed=1) * 1.3
    theirs = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
    ours = gaussian(a), gaussian(b)
    assert [part.factor is not None for part in ours] == [n <= 24, m <= 24]
    assert frechet_distance(*ours) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


@pytest.mark.parametrize("n", [60, 200])     # fewer images than dimensions, and more
@pytest.mark.parametrize("spread", [0, 1e-12, 1e-9, 1e-7, 1e-6, 1e-4])
@pytest.mark.parametrize("rank", [1, 64])
def test_a_set_of_all_but_equal_images_has_a_distance(n, spread, rank):
    """As a collapsed generator draws them: the covariance is rounding, of either sign, and not quite symmetric."""
    x, image = draw(300, 64, seed=1), torch.rand(64, dtype=torch.float64) + 3
    equal = image + spread * draw(n, rank, seed=2) @ draw(rank, 64, seed=3)
    expected = (image - x.mean(0)).square().sum() + x.var(0).sum()
    for pair in ((equal, x), (x, equal)):
        value = frechet_distance(*map(gaussian, pair))
        assert value == pytest.approx(expected.item(), rel=1e-4 if spread < 1e-4 else 1e-2)
    assert frechet_distance(gaussian(equal), gaussian(equal)) == pytest.approx(0, abs=1e-4)
    zero = Moments(n, 64, shift=0.4)
    zero.update(0, 0 * equal)
    assert frechet_distance(zero.gaussian(), gaussian(x)) == pytest.approx((x.mean(0).square() + x.var(0)).sum().item())


def shards(x, cuts, groups=1):
    """One state a stretch of the images, all of the whole set."""
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
        found.append(Moments(*x.shape, shift=1e4, groups=groups))
        found[-1].update(start, x[start:stop])
    return found


def add(states):
    total = states[0]
    for state in states[1:]:
        for name, tensor in total.tensors.items():
            tensor += state.tensors[name]
    return total


@pytest.mark.parametrize(("n", "dims"), [(101, 6), (101, 120)])
def test_shards_add_in_any_order_to_the_moments_of_numpy(n, dims):
    x = draw(n, dims) + 1e4
    for order in ([0, 1, 2], [2, 0, 1]):
        parts = shards(x, [40, 41])
        merged = add([parts[i] for i in order]).gaussian()
        covariance = merged.factor.T @ merged.factor if merged.covariance is None else merged.covariance
        np.testing.assert_allclose(merged.mean, x.numpy().mean(0), rtol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dims", [6, 120])
def test_a_group_left_out_is_left_out(dims):
    x = draw(101, dims)
    moments = Moments(101, dims, groups=GROUPS)
    moments.update(0, x)
    without, direct = moments.gaussian(3), gaussian(x[torch.from_numpy(group_of(101, GROUPS) != 3)])
    torch.testing.assert_close(without.mean, direct.mean)
    assert without.trace.item() == pytest.approx(direct.trace.item())
    assert frechet_distance(without, direct) == pytest.approx(0, abs=1e-6)


def test_moments_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="3 dimensions"):
        Moments(9, 3).update(0, draw(5, 4))
    with pytest.raises(ValueError, match=r"images 5 to 10, .* moments of 9 images"):
        Moments(9, 3).update(5, draw(5, 3))
    with pytest.raises(ValueError, match="NaN"):
        Moments(9, 1).update(0, torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match="1 samples"):
        gaussian(draw(1, 3))
    half = Moments(9, 3)
    half.update(0, draw(5, 3))
    with pytest.raises(ValueError, match="5 of 9 images are in"):
        half.gaussian()


def test_distance_refuses_what_is_no_pair_of_gaussians(unchecked):
    good = gaussian(draw(20, 3))
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        frechet_distance(good, gaussian(draw(20, 4)))
    with pytest.raises(ValueError, match="NaN"):
        Gaussian(torch.zeros(3), torch.full((3, 3), math.nan))
    with pytest.raises(ValueError, match="expected d, d x d"):
        Gaussian(torch.zeros(3), torch.eye(4))
    with pytest.raises(ValueError, match="not symmetric"):
        Gaussian(torch.zeros(3), torch.eye(3) + torch.ones(3, 3).triu(1))
    indefinite = Gaussian(torch.zeros(3).double(), torch.diag(torch.tensor([1.0, 1.0, -0.1]).double()))
    for pair in ((good, indefinite), (indefinite, good)):
        with pytest.raises(ValueError, match="negative eigenvalues"):
            frechet_distance(*pair)


# Intervals

def test_an_interval_of_the_distance_holds_the_spread_over_sets():
    """Of 40 sets of one distribution, the 95 % intervals of most hold the mean distance over all of them."""
    reference = Frechet(gaussian(correlated(3000, 4, seed=1) + 1))
    found = []
    for seed in range(2, 42):
        moments = Moments(600, 4, groups=GROUPS)
        moments.update(0, correlated(600, 4, seed=seed))
        found.append(jackknife(lambda group, moments=moments: reference(moments.gaussian(group))))
    centre = np.mean([value for value, _ in found])
    assert sum(low <= centre <= high for _, (low, high) in found) >= 33
    spread = np.std([value for value, _ in found], ddof=1)
    assert np.mean([(high - low) / 2 for _, (low, high) in found]) == pytest.approx(2.26 * spread, rel=0.35)


def test_fewer_images_than_groups_have_no_interval():
    moments = Moments(2, 3, groups=GROUPS)
    moments.update(0, draw(2, 3))
    value, interval = jackknife(lambda group: Frechet(gaussian(draw(9, 3)))(moments.gaussian(group)))
    assert value > 0 and interval is None
