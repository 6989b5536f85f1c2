"""Means and covariances that were published in the place of images, as in ADM's reference files."""

import re
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restok.errors import InputError
from restok.files import reading
from restok.metrics.facts import StatisticsError
from restok.metrics.frechet import Gaussian

CACHE = ".pt"                            # of torch-fidelity
CLEAN_FID = re.compile(r".+_(?P<mode>clean|legacy_tensorflow|legacy_pytorch)_.+_(\d+|na)\.npz")


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
    """The statistics in a file of somebody else's, in float64: 'pooled' from mu and sigma, 'spatial' from mu_s and sigma_s.

    An npz as ADM, pytorch-fid and clean-fid write it, or torch-fidelity's cache (.pt), of which no code is run. Raises
    StatisticsError for a mean without its covariance, for what is neither, and for features of another kind.
    """
    path, published = Path(path), {}
    with nullcontext(_cached(path)) if path.suffix == CACHE else np.load(path) as arrays:
        for part, mean, covariance in (("pooled", "mu", "sigma"), ("spatial", "mu_s", "sigma_s")):
            if (mean in arrays) != (covariance in arrays):
                raise StatisticsError(f"{path}: has only one of {mean!r} and {covariance!r}; take the published file whole")
            if mean in arrays:
                try:
                    pair = (np.asarray(arrays[name]).astype(float) for name in (mean, covariance))
                    published[part] = Gaussian(*map(torch.from_numpy, pair))
                    published[part].require_covariance()
                except Exception as error:           # numpy raises many kinds for a damaged array
                    raise StatisticsError(f"{path}: {mean!r}, {covariance!r}: {error}; take the published file again") from None
    return published


def _cached(path: Path) -> dict:
    """What torch-fidelity keeps of images for its FID."""
    makes = np.empty(0).__reduce__()[0]
    numpys = [(makes, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]        # of its versions 1 and 2
    numpys += [np.ndarray, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType]
    foreign = StatisticsError(f"{path}: no statistics as torch-fidelity keeps them, mu and sigma alone, or damaged; name its "
                              "file ...-inception-v3-compat-stat-fid-2048.pt")
    with reading(path, lambda _: foreign), torch.serialization.safe_globals(numpys):
        arrays = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(arrays, dict) or not arrays.keys() & {"mu", "sigma"}:
        raise foreign
    return arrays


def resized_otherwise(path: Path, arrays: Collection[str]) -> str | None:
    """What is to be said of statistics in a file of these arrays, by whose maker's resize they may differ; None of ADM's own
    files and of torch-fidelity's. Raises StatisticsError where clean-fid's name for the file says that they do."""
    made = CLEAN_FID.fullmatch(path.name)
    if made and made["mode"] == "clean":
        raise StatisticsError(f"{path}: clean-fid's statistics in its mode 'clean', of images resized by pillow's antialiased "
                              "bicubic filter: a distance to them would be no FID of either kind; take clean-fid's "
                              "legacy_tensorflow, or name the images")
    if path.suffix == CACHE or "mu_s" in arrays or "arr_0" in arrays or (made and made["mode"] == "legacy_tensorflow"):
        return None
    return (f"{path.name} does not say how its images were resized for Inception: here as in TensorFlow 1, as by ADM and "
            "torch-fidelity; by pytorch-fid, and in clean-fid's modes 'clean' and 'legacy_pytorch', otherwise, and a distance "
            "to theirs is not quite FID")
