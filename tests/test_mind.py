"""MIND: torch-fidelity's draws, the Wasserstein distance on the line, and what its interval promises."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from restok.metrics.mind import DIRECTIONS, SEED, mind, quantiles


def normal(n, d=6, seed=0, shift=0.0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, scale, (n, d)).astype(np.float32))


def plainly(x, y):
    """The definition, for sets of one size, in numpy."""
    ways = torch.randn(DIRECTIONS, x.shape[1], generator=torch.Generator().manual_seed(SEED)).numpy()
    ways = ways / np.linalg.norm(ways, axis=1, keepdims=True)
    apart = np.sort(x.numpy() @ ways.T, 0) - np.sort(y.numpy() @ ways.T, 0)
    return 3 * x.shape[1] * (apart.astype(float) ** 2).mean()


def test_it_is_the_definition():
    x, y = normal(300), normal(300, seed=1, shift=0.3)
    assert mind(x, y)[0] == pytest.approx(plainly(x, y), rel=1e-5)
    assert mind(x, x)[0] == 0


def test_of_the_larger_set_as_many_are_drawn_as_torch_fidelity_draws():
    x, y = normal(100), normal(340, seed=1, scale=2)
    draws = torch.Generator().manual_seed(SEED)
    few = y[torch.randperm(340, generator=draws)[:100]]
    ways = torch.randn(DIRECTIONS, 6, generator=draws)
    ways = ways / ways.norm(dim=1, keepdim=True)
    apart = (x @ ways.T).sort(0).values - (few @ ways.T).sort(0).values
    assert mind(x, y)[0] == pytest.approx(3 * 6 * apart.double().square().mean().item(), rel=1e-5)


def test_in_one_dimension_it_is_three_times_the_wasserstein_distance_squared():
    x, y = normal(200, 1), normal(200, 1, seed=1, shift=1, scale=3)
    apart = np.sort(x.numpy(), 0) - np.sort(y.numpy(), 0)
    assert mind(x, y)[0] == pytest.approx(3 * (apart**2).mean(), rel=1e-5)
    apart = wasserstein_distance(x.numpy().ravel(), (x + 2).numpy().ravel())            # of each pair the same
    assert mind(x, x + 2)[0] == pytest.approx(3 * apart**2, rel=1e-4)


def test_a_shift_counts_three_times_its_square():
    """Along a random direction a shift by s is seen as s^2 / d."""
    x = normal(2000, 20)
    assert mind(x, x + torch.tensor([2.0] + [0.0] * 19))[0] == pytest.approx(3 * 4, rel=0.1)


def test_the_interval_holds_what_is_expected_of_other_samples():
    """Its promise of 95 %, of the chance of the samples, the references as they are."""
    references = normal(400, 8, seed=1000)
    found = [mind(normal(400, 8, seed, shift=0.4), references, 100) for seed in range(60)]
    expected = np.mean([value for value, _ in found])
    held = np.mean([low <= expected <= high for _, (low, high) in found])
    assert 0.85 <= held <= 1
    assert np.mean([high - low for _, (low, high) in found]) < 8 * np.std([value for value, _ in found])     # nor is it empty


def test_few_images_have_no_interval_and_bad_features_are_refused():
    assert mind(normal(2), normal(2, seed=1))[1] is None
    for x, y, message in ((normal(1), normal(9), "take 2"), (normal(9) * torch.nan, normal(9), "NaN")):
        with pytest.raises(ValueError, match=message):
            mind(x, y)


def test_quantiles_of_all_are_the_values_and_of_fewer_lie_between():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    assert quantiles(values, 4).tolist() == values.tolist()
    assert quantiles(values, 2).tolist() == [[1.5, 6.0]] and quantiles(values, 1).tolist() == [[3.0]]
