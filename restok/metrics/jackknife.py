"""How sure a value is: the delete-a-group jackknife (Shao and Wu 1989), which needs additive states and no second pass."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import UInt8

GROUPS = 10
T_QUANTILE = 2.262157      # of Student's t with GROUPS - 1 degrees of freedom, at 97.5 %
NORMAL_QUANTILE = 1.959964
Interval = tuple[float, float]


@cache
def group_of(n: int, groups: int) -> UInt8[np.ndarray, " n"]:
    """The group of each of n images: every run of `groups` images in order has one image in each group, drawn from a fixed
    seed. So no class is left out with a group, whether images are sorted by class or cycle through the classes."""
    runs = np.tile(np.arange(groups), (-(-n // groups), 1))
    return np.random.default_rng(0).permuted(runs, axis=1).ravel()[:n].astype(np.uint8)


def jackknife(statistic: Callable[[int | None], float], least: float = -math.inf,
              most: float = math.inf) -> tuple[float, Interval | None]:
    """The statistic of all images, `statistic(None)`, and its 95 % interval from `statistic(g)`, without group g each.

    The interval covers the chance of these n images, not the bias of a statistic at this n (FID's is about 1 / n). It holds the
    value, and both lie within what the statistic can be, `least` to `most`, which rounding may leave. None where too few images
    are left without a group.
    """
    value = _within(statistic(None), least, most)
    try:
        others = np.array([statistic(group) for group in range(GROUPS)])
    except ValueError:         # too few images are left without a group
        return value, None
    deviation = math.sqrt((GROUPS - 1) / GROUPS * np.square(others - others.mean()).sum())
    half = T_QUANTILE * deviation
    return value, (_within(value - half, least, most), _within(value + half, least, most))


def mean_and_interval(n: float, total: float, squares: float, least: float = -math.inf,
                      most: float = math.inf) -> tuple[float, Interval | None]:
    """A mean over n images and its 95 % interval, from the sums of their values and of their squares; both lie within `least`
    to `most`. None for one image."""
    mean = _within(total / n, least, most)
    if n < 2:
        return mean, None
    variance = max(squares / n - mean**2, 0.0) * n / (n - 1)
    half = NORMAL_QUANTILE * math.sqrt(variance / n)
    return mean, (_within(mean - half, least, most), _within(mean + half, least, most))


def share_interval(share: float, n: int) -> Interval:
    """Wilson's 95 % interval of a share of n images: not empty at 0 and at 1."""
    z = NORMAL_QUANTILE
    centre, scale = (share + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n)
    half = scale * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)     # rounding moves neither end past it


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
