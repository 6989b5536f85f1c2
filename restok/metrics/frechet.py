"""The Frechet distance between two sets of features, each seen as a Gaussian: FID on Inception's pooled features."""

from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

Gaussian = tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]     # mean, covariance
ROUNDING = 1e-5   # of the largest eigenvalue: how far below zero a covariance that was once stored in float32 may reach


class Moments:
    """Count, sum and sum of outer products of features, in float64 about a fixed shift.

    States of one shift add, so shards merge by addition, in any order. The shift only guards digits where the mean is far
    larger than the spread; it changes no result.
    """

    def __init__(self, shift: Float[Tensor, " d"]):
        self.shift = shift.to(torch.float64)
        self.n = 0
        self.total = torch.zeros_like(self.shift)                                          # d
        self.outer = self.shift.new_zeros(len(shift), len(shift))                          # d d

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> Self:
        """The moments of features that are all at hand, about their own mean."""
        moments = cls(features.to(torch.float64).mean(0))
        moments.update(features)
        return moments

    def update(self, features: Float[Tensor, "n d"]) -> None:
        """Take in a batch: one float64 matrix product. Raises ValueError on NaN, infinity or another width."""
        if features.ndim != 2 or features.shape[1] != len(self.shift):
            raise ValueError(f"features of shape {tuple(features.shape)} do not fit moments of {len(self.shift)} dimensions")
        if not features.isfinite().all():
            raise ValueError("features hold NaN or infinity: look at the images and at the feature network's weights")
        centred = features.to(self.shift) - self.shift                                     # n d
        self.n += len(centred)
        self.total += centred.sum(0)
        self.outer += centred.T @ centred

    def __add__(self, other: "Moments") -> "Moments":
        if not torch.equal(self.shift, other.shift):
            raise ValueError("moments about different shifts do not add: give every shard the same shift")
        merged = Moments(self.shift)
        merged.n, merged.total, merged.outer = self.n + other.n, self.total + other.total, self.outer + other.outer
        return merged

    @property
    def mean(self) -> Float[Tensor, " d"]:
        return self.shift + self.total / self._at_least(1)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased: divided by n - 1."""
        n = self._at_least(2)
        return (self.outer - torch.outer(self.total, self.total) / n) / (n - 1)

    def _at_least(self, fewest: int) -> int:
        if self.n < fewest:
            raise ValueError(f"{self.n} samples: a mean takes 1, a covariance 2")
        return self.n


def frechet_distance(a: Moments | Gaussian, b: Moments | Gaussian) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), in float64.

    The trace of the root is the sum of the roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric.
    Raises ValueError on NaN, on fewer than two samples, on different dimensions and on what is not a covariance.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = _gaussian(a), _gaussian(b)
    if len(mean_a) != len(mean_b):
        raise ValueError(f"{len(mean_a)} and {len(mean_b)} dimensions do not compare: take one feature network for both")
    eigenvalues, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * _roots(eigenvalues) @ vectors.T                                       # d d
    cross = _roots(torch.linalg.eigvalsh(root @ covariance_b @ root)).sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross
    return max(distance.item(), 0.0)     # equal sets round to either side of zero


def _gaussian(moments: Moments | Gaussian) -> Gaussian:
    pair = (moments.mean, moments.covariance) if isinstance(moments, Moments) else moments
    mean, covariance = (torch.as_tensor(part).to(torch.float64) for part in pair)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean of shape {tuple(mean.shape)}, covariance of {tuple(covariance.shape)}: expected d and d x d")
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError("the mean or the covariance holds NaN or infinity: compute the statistics again")
    if (covariance - covariance.T).abs().max() > ROUNDING * covariance.abs().max():
        raise ValueError("not a covariance: it is not symmetric")
    return mean, covariance


def _roots(eigenvalues: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Of eigenvalues in increasing order, which only rounding may bring below zero."""
    if eigenvalues[0] < -ROUNDING * eigenvalues[-1].abs():
        raise ValueError(f"not a covariance: negative eigenvalues, down to {eigenvalues[0]:.3g}; compute it in float64")
    return eigenvalues.clamp(min=0).sqrt()
