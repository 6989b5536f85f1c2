"""Intervals: closed forms, scipy's, and what they lie within."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from conftest import ROOT

from restok.metrics.intervals import (
    GROUPS,
    NORMAL,
    group_of,
    jackknife,
    mean_and_interval,
    seeds_interval,
    share_interval,
    side,
    student_quantile,
)
from restok.metrics.reconstruction import psnr_ceiling


def test_groups_leave_no_class_out():
    """Neither of images sorted by class, nor of images that cycle through the classes."""
    groups = group_of(5000, GROUPS)
    assert np.bincount(groups).tolist() == [500] * GROUPS
    for labels in (np.arange(5000) % 100, np.arange(5000) // 50):
        counts = np.zeros((100, GROUPS), int)
        np.add.at(counts, (labels, groups), 1)
        assert (counts.sum(1, keepdims=True) > counts).all()
        assert (counts > 0).mean() > 0.95


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x, groups = np.random.default_rng(0).standard_normal(1000), group_of(1000, GROUPS)
    value, (low, high) = jackknife(lambda g: float(x.mean() if g is None else x[groups != g].mean()))
    means = np.array([x[groups == g].mean() for g in range(GROUPS)])
    half = 2.262157 * means.std(ddof=1) / math.sqrt(GROUPS)
    assert value == x.mean() and (low, high) == pytest.approx((value - half, value + half))


def test_the_mean_of_equal_values_is_that_value_whatever_rounding_adds():
    """The sum of ten times 0.1 is below 1; of a bound, the mean lay outside it."""
    ceiling = psnr_ceiling(3 * 16 * 16)
    for n in range(1, 400):
        total = sum([ceiling] * n)
        value, interval = mean_and_interval(n, total, sum([ceiling**2] * n), 0, ceiling)
        assert value <= ceiling and (n == 1 or interval[0] <= value <= interval[1] <= ceiling)
    assert any(sum([ceiling] * n) / n > ceiling for n in range(1, 400))           # which is what is taken back


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 60), (60, 60), (7, 60), (36, 360), (49_999, 50_000)])
def test_the_interval_of_a_share_is_wilsons(k, n):
    theirs = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    low, high = share_interval(k / n, n)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12) and 0 <= low <= k / n <= high <= 1 and low < high


def test_the_interval_over_seeds_is_students():
    assert NORMAL == pytest.approx(scipy.stats.norm.ppf(0.975), rel=1e-15)
    for values in ([3.0, 4.0], [1.0, 2.5, 2.0], list(range(12))):
        freedom = len(values) - 1
        assert student_quantile(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-12)
        theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert seeds_interval(values) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert seeds_interval([5.0, 5.0]) == (5, 5)


def test_one_interval_lies_below_another_only_where_they_do_not_touch():
    assert (side((1, 2), (3, 4)), side((3, 4), (1, 2))) == (-1, 1)
    assert side((1, 2), (2, 3)) == side((2, 3), (1, 2)) == side((1, 4), (2, 3)) == side(None, (2, 3)) == side((1, 2), None) == 0


def test_intervals_are_made_without_torch_and_scipys_slow_part():
    code = ("import sys; from restok.metrics.intervals import seeds_interval, share_interval; seeds_interval([1, 2]);"
            "share_interval(0.5, 10); sys.exit(' '.join({'torch', 'scipy.stats'} & set(sys.modules)) or 0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
