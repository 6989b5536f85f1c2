"""How sure a value is: 95 % intervals of what images or seeds vary by chance, and which of two lies below the other."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist, mean, stdev

import numpy as np
from jaxtyping import UInt8

GROUPS = 10
UPPER = 0.975                                # the quantile at which a two-sided 95 % interval ends
NORMAL = NormalDist().inv_cdf(UPPER)
Interval = tuple[float, float]


@cache
def group_of(n: int, groups: int) -> UInt8[np.ndarray, " n"]:
    """The group of each of n images: every run of `groups` images in order has one image in each group, drawn from a fixed
    seed. So no class is left out with a group, whether images are sorted by class or cycle through the classes."""
    runs = np.tile(np.arange(groups), (-(-n // groups), 1))
    return np.random.default_rng(0).permuted(runs, axis=1).ravel()[:n].astype(np.uint8)


def jackknife(statistic: Callable[[int | None], float], least: float = -math.inf,
              most: float = math.inf) -> tuple[float, Interval | None]:
    """The statistic of all images, `statistic(None)`, and its interval from `statistic(g)`, without group g each: the
    delete-a-group jackknife (Shao and Wu 1989), which needs additive states and no second pass.

    The interval covers the chance of these n images, not the bias of a statistic at this n (FID's is about 1 / n). It holds the
    value, and both lie within what the statistic can be, `least` to `most`, which rounding may leave. None where too few images
    are left without a group.
    """
    value = min(max(statistic(None), least), most)
    try:
        others = np.array([statistic(group) for group in range(GROUPS)])
    except ValueError:         # too few images are left without a group
        return value, None
    half = student_quantile(GROUPS - 1) * math.sqrt((GROUPS - 1) / GROUPS * np.square(others - others.mean()).sum())
    return value, (max(value - half, least), min(value + half, most))


def mean_and_interval(n: float, total: float, squares: float, least: float = -math.inf,
                      most: float = math.inf) -> tuple[float, Interval | None]:
    """A mean over n images and its interval, from the sums of their values and of their squares; both lie within `least` to
    `most`. None for one image."""
    centre = min(max(total / n, least), most)
    if n < 2:
        return centre, None
    variance = max(squares / n - centre**2, 0.0) * n / (n - 1)
    half = NORMAL * math.sqrt(variance / n)
    return centre, (max(centre - half, least), min(centre + half, most))


def share_interval(share: float, n: int) -> Interval:
    """Wilson's interval of a share of n images: not empty at 0 and at 1. In closed form: of scipy it takes scipy.stats."""
    z = NORMAL
    centre, scale = (share + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n)
    half = scale * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)     # rounding moves neither end past it


def seeds_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of values that differ by their seeds, two or more."""
    centre, half = mean(values), student_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return centre - half, centre + half


def student_quantile(freedom: int) -> float:
    """Of Student's t, at `UPPER`."""
    from scipy.special import stdtrit  # scipy.stats has the same number, and takes six times as long to import
    return stdtrit(freedom, UPPER).item()


def side(a: Sequence[float] | None, b: Sequence[float] | None) -> int:
    """-1 where interval a lies below b, 1 where above, 0 where they overlap or one is unknown."""
    return 0 if a is None or b is None else (a[0] > b[1]) - (a[1] < b[0])
