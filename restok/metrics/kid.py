"""The kernel Inception distance (Binkowski et al., arXiv 1801.01401): unbiased at any number of images, unlike FID."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from restok.errors import InputError
from restok.metrics.intervals import NORMAL


class KID(NamedTuple):
    value: float              # mean over the subsets
    deviation: float          # standard deviation over the subsets
    subset_size: int          # images of either set in a subset
    subsets: int

    def interval(self, n: int) -> tuple[float, float]:
        """The 95 % interval of the value for sets of which the smaller has n images, more than a subset.

        Subsampling without replacement: a subset of m varies by deviation^2 = (1/m - 1/n) s^2 about the whole sets, and the
        whole sets by s^2 / n = deviation^2 m / (n - m); the mean of so many random subsets adds deviation^2 / subsets. This
        assumes a variance that falls as 1/n. It falls faster where both sets have one distribution: there the interval is
        too wide. Raises ValueError where n is not more than a subset.
        """
        if n <= self.subset_size:
            raise InputError(f"{n} images are no more than a subset of {self.subset_size}: its spread says nothing about them")
        error = self.deviation * (self.subset_size / (n - self.subset_size) + 1 / self.subsets) ** 0.5
        return self.value - NORMAL * error, self.value + NORMAL * error


def kid(samples: Float[Tensor, "n d"], references: Float[Tensor, "m d"], subset_size: int = 1000, subsets: int = 100,
        seed: int = 2020) -> KID:
    """The mean of `polynomial_mmd` over random subsets of `subset_size` images of either set.

    Of a set with fewer than two subsets, a subset takes half. The subsets are torch-fidelity's for the same sizes and seed.
    Raises ValueError on NaN, on different dimensions, on fewer than two subsets and on sets too small for a subset of two.
    """
    size = min(subset_size, len(samples) // 2, len(references) // 2)
    if size < 2 or subsets < 2:
        raise InputError(f"{subsets} subsets of {size} from {len(samples)} samples and {len(references)} references: take 2 "
                         "subsets or more, of 2 images or more; a subset is at most half of a set")
    draws = np.random.RandomState(seed)
    values = torch.stack([polynomial_mmd(*(points[torch.from_numpy(draws.choice(len(points), size, replace=False))]
                                           for points in (samples, references))) for _ in range(subsets)])
    return KID(values.mean().item(), values.std(correction=0).item(), size, subsets)


def polynomial_mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """The unbiased estimate of MMD^2 with the kernel (x.y / d + 1)^3, in float64: about 0 for equal distributions, also below.

    Raises ValueError on NaN, on different dimensions and on sets of fewer than two points.
    """
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{x.shape[1]} and {y.shape[1]} dimensions: take one feature network for both")
    if min(len(x), len(y)) < 2:
        raise InputError(f"sets of {len(x)} and {len(y)} points: take 2 at the least")
    x, y = x.double(), y.double()
    value = _pairs_mean(x) + _pairs_mean(y) - 2 * _kernel(x, y).mean()
    if not value.isfinite():
        raise InputError("the features hold NaN or infinity: look at the images and at the feature network's weights")
    return value


def _pairs_mean(x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Of the kernel, over pairs of different points."""
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.trace()) / (len(x) * (len(x) - 1))


def _kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3
