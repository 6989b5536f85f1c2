"""FDr6 (arXiv 2604.28190): how far samples are from ImageNet's training images, as a multiple of how far its validation images
are, the mean over six networks. A generator can be trained towards one network's distance; this one asks six."""

from restok.config import FDR6
from restok.metrics.comparison import Comparison
from restok.metrics.features import JUDGES, metric_names

NAME = "FDr6"
# The distance of ImageNet's 50,000 validation images from the statistics of its training images, as published.
NORMALISERS = {"FID": 1.68, "FD-ConvNeXt-V2": 56.87, "FD-DINOv2-256": 14.19, "FD-MAE": 0.04, "FD-SigLIP2": 0.60,
               "FD-CLIP": 5.60}
COARSE, ROUNDED = "FD-MAE", (0.035, 0.045)           # the one that has one digit, and what it may be
IMAGES, SIDE, TRAINING = 50_000, 256, 1_281_167      # samples, their pixels, and images of the reference
ABOUT = {"normalisers": NORMALISERS, "coarse": {COARSE: ROUNDED}}


def fdr6(comparison: Comparison) -> None:
    """The mean of the six distances, each divided by its normaliser, or every reason why it cannot be had."""
    if reasons := _reasons(comparison):
        return comparison.refuse("; ".join(reasons), NAME)
    comparison.mean_ratio(NAME, NORMALISERS)
    value, share = comparison.metrics[NAME], comparison.metrics[COARSE] / len(NORMALISERS)
    low, high = (value + share * (1 / normaliser - 1 / NORMALISERS[COARSE]) for normaliser in reversed(ROUNDED))
    comparison.warnings.append(f"{NAME}: the normaliser of {COARSE}, {NORMALISERS[COARSE]}, has one digit: for that alone the "
                               f"value may be {low:.4g} to {high:.4g}, which its interval does not cover")


def _reasons(comparison: Comparison) -> list[str]:
    samples, reference, reasons = comparison.samples, comparison.reference, []
    if samples.facts["images"]["size"] != [SIDE, SIDE]:
        size = "x".join(map(str, samples.facts["images"]["size"]))
        reasons.append(f"{samples.name} has images of {size}, not {SIDE}x{SIDE}")
    if samples.n != IMAGES:
        reasons.append(f"{samples.name} has {samples.n} images, not {IMAGES}: a distance's bias is about 1/n")
    if reference.n != TRAINING:
        reasons.append(f"{reference.name} is of {reference.n} images: take statistics of ImageNet's {TRAINING} training images")
    if lacking := [name for name in FDR6 if JUDGES[name].kind not in samples.also]:
        reasons.append(f"{samples.name} was not measured with {', '.join(JUDGES[name].kind for name in lacking)}: bring the "
                       f"weights of {', '.join(FDR6[name] for name in lacking)} by `restok fetch --features "
                       "fdr6`, and measure it again")
    kinds = {metric_names(JUDGES[name].kind)["distance"] for name in lacking}         # said above
    reasons += [f"{name}: {comparison.refused[name]}" for name in NORMALISERS if name in comparison.refused.keys() - kinds]
    missing = [name for name in NORMALISERS if name not in comparison.metrics]
    return reasons + [f"{name} was not measured: measure with --features fdr6" for name in missing]
