"""Means and covariances that were published in the place of images, as in ADM's reference files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restok.errors import InputError
from restok.metrics.facts import StatisticsError
from restok.metrics.frechet import Gaussian


def take_published(tensors: dict[str, Tensor], facts: Mapping) -> dict[str, Gaussian]:
    """The published statistics of a file, taken out of its tensors. Raises InputError for half a pair, and for what is none."""
    taken = {name: tensors.pop(name) for name in list(tensors) if name.startswith("published.")}
    published = {}
    for part, width in (("pooled", facts["features"]["dims"]), ("spatial", facts["spatial"])):
        pair = [taken.pop(name) for name in (f"published.{part}.mean", f"published.{part}.covariance") if name in taken]
        if pair and (len(pair) < 2 or pair[0].shape != (width,)):
            raise InputError(f"published.{part}: not a mean and a covariance of {width} features")
        if pair:
            published[part] = Gaussian(*pair)
    if taken:
        raise InputError(f"{next(iter(taken))}: not known")
    return published


def published_gaussians(path: str | Path) -> dict[str, Gaussian]:
    """What an ADM reference npz holds beside its images: 'pooled' from mu and sigma, 'spatial' from mu_s and sigma_s, in
    float64. Raises StatisticsError for a mean without its covariance, and for what is neither."""
    published = {}
    with np.load(path) as file:
        for part, mean, covariance in (("pooled", "mu", "sigma"), ("spatial", "mu_s", "sigma_s")):
            if (mean in file) != (covariance in file):
                raise StatisticsError(f"{path}: has only one of {mean!r} and {covariance!r}; take the published file whole")
            if mean in file:
                try:
                    published[part] = Gaussian(*(torch.from_numpy(file[name].astype(float)) for name in (mean, covariance)))
                    published[part].require_covariance()
                except Exception as error:           # numpy raises many kinds for a damaged array
                    raise StatisticsError(f"{path}: {mean!r}, {covariance!r}: {error}; take the published file again") from None
    return published
