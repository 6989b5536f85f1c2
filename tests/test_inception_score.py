"""The Inception score: closed forms, another implementation, and sums that add."""

import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from restok.metrics import inception_score
from restok.metrics.inception_score import MODES, Score
from restok.metrics.intervals import GROUPS, group_of


def logits_of(n, k=10, seed=0):
    return 4 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score_of(logits, groups=1, step=None):
    score = Score(*logits.shape, groups)
    for start in range(0, len(logits), step or len(logits)):
        score.update(start, logits[start:start + (step or len(logits))])
    return score


@pytest.mark.parametrize("mode", MODES)
def test_uninformative_images_score_one_and_sure_and_even_ones_k(mode):
    assert score_of(torch.zeros(20, 10)).value(mode) == pytest.approx(1)
    assert score_of(1e4 * torch.eye(10).repeat(30, 1)).value("one split") == pytest.approx(10)


def test_rounding_takes_no_score_below_one_or_above_k():
    """Of sixty equal images about one score in six would be 1 - 7e-16; of sure and even ones, some are above k."""
    equal = [score_of(torch.randn(1, 10, generator=torch.Generator().manual_seed(seed)).repeat(60, 1)) for seed in range(50)]
    assert all(1 <= score.value("one split") < 1 + 1e-12 for score in equal)
    assert all(score_of(1e4 * torch.eye(k).repeat(3, 1)).value("one split") <= k for k in range(2, 60))


def test_one_split_and_ten_shuffled_agree_with_torch_fidelity():
    score, logits = score_of(logits_of(203), step=60), logits_of(203)
    for mode, settings in (("one split", {"splits": 1, "shuffle": False}), ("ten shuffled", {})):
        assert score.value(mode) == pytest.approx(isc_features_to_metric(logits, **settings)["inception_score_mean"], rel=1e-9)


def test_adm_splits_are_contiguous_and_the_last_may_be_smaller(monkeypatch):
    monkeypatch.setattr(inception_score, "SPLIT", 40)
    logits = logits_of(90)
    parts = [isc_features_to_metric(part, 1, False)["inception_score_mean"] for part in logits.split(40)]
    assert score_of(logits).value("ADM splits") == pytest.approx(sum(parts) / 3, rel=1e-9)


def test_samples_sorted_by_class_are_told_from_mixed_ones(monkeypatch):
    monkeypatch.setattr(inception_score, "SPLIT", 50)
    in_order = 1e4 * torch.eye(10).repeat_interleave(20, 0)
    mixed = 1e4 * torch.eye(10).repeat(20, 1)
    assert score_of(in_order).sorted_by_class and not score_of(mixed).sorted_by_class
    assert score_of(in_order).value("ADM splits") < 3 < score_of(mixed).value("ADM splits")
    assert not score_of(in_order[:60]).sorted_by_class          # one split and a bit has nothing to differ from


def test_few_sorted_splits_of_a_doubtful_network_are_told_too():
    """9,000 images of 1,000 classes, 80 % of them read right: the second split is not whole."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(9000) // 9
    seen = torch.where(torch.rand(9000, generator=rng) < 0.8, labels, torch.randint(1000, (9000,), generator=rng))
    logits = torch.zeros(9000, 1000).scatter_(1, seen[:, None], 20)
    assert score_of(logits, step=3000).sorted_by_class
    assert not score_of(logits[torch.randperm(9000, generator=rng)], step=3000).sorted_by_class


def test_a_group_left_out_is_left_out():
    logits = logits_of(120)
    kept = logits[torch.from_numpy(group_of(120, GROUPS) != 4)]
    assert score_of(logits, GROUPS).value("one split", 4) == pytest.approx(score_of(kept).value("one split"))


def test_score_refuses_nan_and_empty_splits():
    with pytest.raises(ValueError, match="NaN"):
        Score(4, 3).update(0, torch.full((4, 3), math.nan))
    with pytest.raises(ValueError, match="leave one of 1 splits empty"):
        Score(4, 3).value("one split")
