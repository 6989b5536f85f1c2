"""The Frechet distance between two sets of features, each seen as a Gaussian: FID on Inception's pooled features."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from restok.errors import InputError
from restok.metrics.intervals import group_of

ROUNDING = 1e-5   # of the largest eigenvalue: how far below zero a covariance that was once stored in float32 may reach
EXACT = 1e-12     # of the second moment: how far one of float64 may, which of all but equal images is rounding alone


@dataclass(frozen=True)
class Gaussian:
    """A mean and a covariance in float64; of fewer samples than dimensions, a factor F (n d) of the covariance, F^T F."""

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"] | None = None
    factor: Float[Tensor, "n d"] | None = None
    shift: float = 0.0                 # about which they were summed up

    def __post_init__(self):
        """Raises ValueError on NaN and on what is no pair of a vector and a symmetric matrix."""
        d, matrix = len(self.mean), self.factor if self.covariance is None else self.covariance
        if self.mean.ndim != 1 or matrix.ndim != 2 or matrix.shape[1] != d or (matrix is self.covariance and len(matrix) != d):
            raise InputError(f"mean of shape {tuple(self.mean.shape)}, covariance of {tuple(matrix.shape)}: expected d, d x d")
        if not (self.mean.isfinite().all() and matrix.isfinite().all()):
            raise InputError("the mean or the covariance holds NaN or infinity: compute the statistics again")
        asymmetry = ROUNDING * matrix.abs().max() + self.rounding
        if matrix is self.covariance and (matrix - matrix.T).abs().max() > asymmetry:
            raise InputError("not a covariance: it is not symmetric")

    def require_covariance(self) -> None:
        """Raises ValueError on negative eigenvalues."""
        if self.covariance is not None:
            _roots(torch.linalg.eigvalsh(self.covariance), self.rounding)

    def to(self, device: torch.device | str) -> "Gaussian":
        moved = (None if part is None else part.to(device) for part in (self.mean, self.covariance, self.factor))
        return Gaussian(*moved, self.shift)

    @property
    def trace(self) -> Float[Tensor, ""]:
        return self.factor.square().sum() if self.covariance is None else self.covariance.trace()

    @property
    def rounding(self) -> Float[Tensor, ""]:
        """How far float64 may take an eigenvalue of the covariance from its true value, and a little more."""
        return EXACT * (self.mean.square().sum() + (self.mean - self.shift).square().sum() + self.trace.abs())


class Moments:
    """Count, sum and sum of outer products of the features of `n` images, in float64 about a fixed shift.

    Additive: shards that saw different images merge by addition, in any order. The sums are kept by group (`group_of`), so
    that any group can be left out. Not more images than dimensions are kept as they are, which takes less memory than their
    outer products. The shift only guards digits where the mean is far larger than the spread; it changes no result.
    """

    def __init__(self, n: int, dims: int, shift: float = 0.0, groups: int = 1, device: torch.device | str = "cpu"):
        self.n, self.dims, self.shift, self.groups = n, dims, shift, groups
        self._member = torch.from_numpy(group_of(n, groups)).to(device)                    # n
        exact = {"dtype": torch.float64, "device": device}
        self.count = torch.zeros(groups, dtype=torch.int64, device=device)
        self.rows = torch.zeros(n, dims, **exact) if n <= dims else None
        self.total = None if n <= dims else torch.zeros(groups, dims, **exact)
        self.outer = None if n <= dims else torch.zeros(groups, dims, dims, **exact)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The additive state."""
        named = {"count": self.count, "rows": self.rows, "total": self.total, "outer": self.outer}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def update(self, start: int, features: Float[Tensor, "b d"]) -> None:
        """Take in images start, start + 1, ...: one float64 matrix product a group. Raises ValueError on NaN, infinity,
        another width, and on more than n images."""
        stop = start + len(features)
        if features.ndim != 2 or features.shape[1] != self.dims or stop > self.n:
            raise InputError(f"features of images {start} to {stop}, shape {tuple(features.shape)}, do not fit moments of "
                             f"{self.n} images in {self.dims} dimensions")
        if not features.isfinite().all():
            raise InputError("features hold NaN or infinity: look at the images and at the feature network's weights")
        centred, member = features.double() - self.shift, self._member[start:stop]         # b d
        self.count += member.long().bincount(minlength=self.groups)
        if self.rows is not None:
            self.rows[start:stop] = centred
            return
        for group in range(self.groups):
            part = centred[member == group]
            self.total[group] += part.sum(0)
            self.outer[group].addmm_(part.T, part)

    def gaussian(self, without: int | None = None) -> Gaussian:
        """Mean and unbiased covariance (divided by n - 1), of all images or without a group of them.

        Raises ValueError before all n images are in, and for fewer than two.
        """
        if self.count.sum() != self.n:
            raise InputError(f"{self.count.sum()} of {self.n} images are in: take in the others first")
        kept = [group for group in range(self.groups) if group != without]
        n = int(self.count[kept].sum())
        if n < 2:
            raise InputError(f"{n} samples: a covariance takes 2")
        if self.rows is not None:
            rows = self.rows if without is None else self.rows[self._member != without]
            return Gaussian(self.shift + rows.mean(0), factor=(rows - rows.mean(0)) / (n - 1) ** 0.5)
        total, outer = self.total[kept].sum(0), self.outer[kept].sum(0)                    # d, d d
        return Gaussian(self.shift + total / n, (outer - torch.outer(total, total) / n) / (n - 1), shift=self.shift)


class Frechet:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) from any Gaussian a to one reference b, in float64."""

    def __init__(self, reference: Gaussian):
        self.reference, self._root = reference, None

    def __call__(self, samples: Gaussian) -> float:
        """Raises ValueError on different dimensions and on what is not a covariance."""
        a, b = samples, self.reference
        if len(a.mean) != len(b.mean):
            raise InputError(f"{len(a.mean)} and {len(b.mean)} dimensions do not compare: take one feature network for both")
        distance = (a.mean - b.mean).square().sum() + a.trace + b.trace - 2 * self._cross(a)
        return max(distance.item(), 0.0)     # equal sets round to either side of zero

    def _cross(self, samples: Gaussian) -> Float[Tensor, ""]:
        """The trace of (S_a S_b)^(1/2): the sum of the roots of the eigenvalues of a product that is symmetric."""
        a, b = samples, self.reference
        if a.factor is not None and b.factor is not None:       # Gram route: the singular values of F_a F_b^T
            return torch.linalg.svdvals(a.factor @ b.factor.T).sum()
        if a.factor is not None:
            product = a.factor @ b.covariance @ a.factor.T
        elif b.factor is not None:
            product = b.factor @ a.covariance @ b.factor.T
        else:
            if self._root is None:                              # once for all samples
                eigenvalues, vectors = torch.linalg.eigh(b.covariance)
                self._root = vectors * _roots(eigenvalues, b.rounding) @ vectors.T         # d d
            product = self._root @ a.covariance @ self._root
        rounding = a.rounding * (b.trace.abs() + b.rounding) + b.rounding * a.trace.abs()
        return _roots(torch.linalg.eigvalsh(product), rounding).sum()


def _roots(eigenvalues: Float[Tensor, " d"], rounding: Float[Tensor, ""]) -> Float[Tensor, " d"]:
    """Of eigenvalues in increasing order, which only rounding may bring below zero."""
    if eigenvalues[0] < -ROUNDING * eigenvalues[-1].abs() - rounding:
        raise InputError(f"not a covariance: negative eigenvalues, down to {eigenvalues[0]:.3g}; compute it in float64")
    return eigenvalues.clamp(min=0).sqrt()
