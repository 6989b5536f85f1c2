"""Precision and recall: the float64 definition to the last comparison, and ADM's float16 reading of it."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from restok.metrics.precision_recall import precision_recall


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n, dims, seed):
    return draw(n, dims, seed=seed) @ draw(dims, dims, seed=99) + 3


def test_identical_sets_have_full_precision_and_recall_even_with_duplicates():
    x = correlated(50, 16, seed=0).repeat(5, 1) + 100     # more copies than neighbours: radii are zero
    assert precision_recall(x, x.flip(0), neighbours=3) == (1, 1)


def test_disjoint_sets_have_none():
    assert precision_recall(draw(40, 8), draw(40, 8, seed=1) + 100, neighbours=3) == (0, 0)


def test_mode_collapse_has_high_precision_and_low_recall():
    references = torch.cat([draw(50, 4), draw(50, 4, seed=1) + 50])
    precision, recall = precision_recall(draw(60, 4, seed=2) * 0.5, references, neighbours=3)
    assert precision > 0.9 and recall <= 0.5


def definition(samples, references, k):
    """From differences in float64; every ball contains its surface."""
    def squares(a, b):
        return (a[:, None].double() - b[None].double()).square().sum(2)
    sample_radii, reference_radii = (squares(x, x).sort(1).values[:, k] for x in (samples, references))
    between = squares(samples, references)
    return ((between <= reference_radii).any(1).double().mean().item(),
            (between <= sample_radii[:, None]).any(0).double().mean().item())


def lattice(n, seed):
    """Integers: hardly two distances differ, and all are exact."""
    return torch.randint(0, 3, (n, 5), generator=torch.Generator().manual_seed(seed)).double()


CASES = {
    "as features are": lambda: (correlated(70, 20, seed=0).relu().float() * 0.8, correlated(90, 20, seed=1).relu().float()),
    "ties": lambda: (lattice(60, seed=0), lattice(80, seed=1)),
    "ties far from zero": lambda: (lattice(60, seed=0).float() + 3000, lattice(80, seed=1).float() + 3000),
    "copies": lambda: (draw(20, 8).repeat(6, 1)[:90], torch.cat([draw(20, 8)[:5].repeat(9, 1), draw(30, 8, seed=2)])),
    "one point": lambda: (torch.ones(50, 4), torch.cat([torch.ones(3, 4), draw(40, 4).float()])),
    "an offset of which float32 keeps no spread": lambda: (draw(50, 6) + 1e9, 1.1 * draw(60, 6, seed=1) + 1e9),
    "an outlier": lambda: (torch.cat([draw(50, 6), draw(1, 6) * 1e7]), draw(60, 6, seed=1)),
    "an outlier beyond float32": lambda: (torch.cat([draw(50, 6), draw(1, 6) * 1e30]), draw(60, 6, seed=1)),
    "tiny": lambda: (draw(50, 6) * 1e-30, draw(60, 6, seed=1) * 1e-30),
    "huge": lambda: (draw(50, 6) * 1e30, draw(60, 6, seed=1) * 1e30),
    "equal": lambda: (torch.zeros(9, 2), torch.zeros(8, 2)),
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU"))])
@pytest.mark.parametrize("case", CASES)
def test_the_decisions_are_those_of_float64_in_blocks_of_any_size(case, device, monkeypatch):
    samples, references = CASES[case]()
    for k in (1, 3):
        expected = definition(samples, references, k)
        for side in (1024, 7):
            monkeypatch.setattr("restok.metrics.precision_recall.SIDE", side)
            assert precision_recall(samples.to(device), references.to(device), k) == expected


@pytest.mark.parametrize("case", CASES)
def test_the_decisions_do_not_depend_on_how_tight_the_bounds_are(case, monkeypatch):
    monkeypatch.setattr("restok.metrics.precision_recall.SIDE", 16)
    monkeypatch.setattr("restok.metrics.precision_recall.UNIT", 0.01)
    assert precision_recall(*CASES[case](), 3) == definition(*CASES[case](), 3)


def test_a_billionth_outside_the_ball_is_outside():
    references = torch.tensor([[0.0], [1.0]], dtype=torch.float64)      # both of radius 1
    for sample, precision in ((-1 - 1e-9, 0), (-1, 1), (2, 1), (2 + 1e-9, 0)):
        assert precision_recall(torch.full((2, 1), sample, dtype=torch.float64), references, 1)[0] == precision


def test_precision_and_recall_agree_with_torch_fidelity():
    samples, references = correlated(70, 5, seed=0) * 0.8, correlated(90, 5, seed=1)
    expected = calculate_precision_recall_full(samples, references, neighborhood=3)
    assert 0 < min(expected) and max(expected) < 1
    assert precision_recall(samples, references, neighbours=3) == pytest.approx(expected)


# ADM's distances

def adm(samples, references, k, side):
    """In NumPy's float16, block by block, as ADM's evaluator; features in eighths, so that no sum before a rounding is off."""
    def expanded(u, v):
        product = (u.astype(np.float64) @ v.astype(np.float64).T).astype(u.dtype)
        lengths_u, lengths_v = (np.square(x).astype(np.float64).sum(1).astype(u.dtype) for x in (u, v))
        return np.maximum(lengths_u[:, None] - u.dtype.type(2) * product + lengths_v, u.dtype.type(0))

    def block(u, v):
        half = expanded(u.astype(np.float16), v.astype(np.float16))
        return half.astype(np.float32) if np.isfinite(half).all() else expanded(u, v)

    def squares(a, b):
        return np.block([[block(a[i:i + side], b[j:j + side]) for j in range(0, len(b), side)] for i in range(0, len(a), side)])
    a, b = samples.numpy(), references.numpy()
    with np.errstate(all="ignore"):
        sample_radii, reference_radii = (np.sort(squares(x, x), 1)[:, k] for x in (a, b))
        between = squares(b, a)
    return (between <= reference_radii[:, None]).any(0).mean(), (between <= sample_radii).any(1).mean()


def eighths(n, dims, seed, offset):
    return ((draw(n, dims, seed=seed) * 8).round() / 8 + offset).float()


@pytest.mark.parametrize("side", [10_000, 30])
@pytest.mark.parametrize("offset", [0, 8, 20])
@pytest.mark.parametrize("copies", [1, 5])      # copies come out at some distance, or below zero
def test_float16_distances_are_those_of_numpys_float16(copies, offset, side, monkeypatch):
    monkeypatch.setattr("restok.metrics.precision_recall.ADM_SIDE", side)
    monkeypatch.setattr("restok.metrics.precision_recall.SIDE", 7)
    samples, references = eighths(70, 64, 0, offset), eighths(80, 64, 1, offset)
    samples = torch.cat([samples, references[:5]])[-70 // copies:].repeat(copies, 1)
    assert precision_recall(samples, references, 3, "adm-fp16") == adm(samples, references, 3, side)


def test_float16_moves_the_result_of_long_features():
    samples, references = eighths(70, 64, 0, 8), eighths(80, 64, 1, 8)      # squared lengths about 4096, in steps of 4
    assert precision_recall(samples, references, 3, "adm-fp16") != precision_recall(samples, references, 3)


def test_a_block_that_overflows_float16_falls_back_to_float32_alone(monkeypatch):
    samples, references = eighths(60, 64, 0, 20), eighths(60, 64, 1, 20)
    samples[:20] += 20      # squared lengths beyond 65504
    found = {}
    for side in (10_000, 30):
        monkeypatch.setattr("restok.metrics.precision_recall.ADM_SIDE", side)
        found[side] = precision_recall(samples, references, 3, "adm-fp16")
        assert found[side] == adm(samples, references, 3, side)
    assert found[10_000] != found[30]
    monkeypatch.setattr("restok.metrics.precision_recall.ADM_SIDE", 10_000)
    apart = eighths(60, 4, 0, 200), eighths(60, 4, 1, 200)
    assert precision_recall(*apart, 3, "adm-fp16") == precision_recall(*apart, 3)


def test_precision_refuses_too_few_points_other_widths_and_nan(unchecked):
    with pytest.raises(ValueError, match="3 samples have no 3 neighbours"):
        precision_recall(draw(3, 2), draw(9, 2), neighbours=3)
    with pytest.raises(ValueError, match="2 and 4 dimensions"):
        precision_recall(draw(9, 2), draw(9, 4), neighbours=3)
    with pytest.raises(ValueError, match="references hold NaN"):
        precision_recall(draw(9, 2), draw(9, 2) * math.nan, neighbours=3)
    with pytest.raises(ValueError, match="distances 'fp16': take 'exact' or 'adm-fp16'"):
        precision_recall(draw(9, 2), draw(9, 2), 3, "fp16")
