"""One set of images held against another, metric by metric: values with their intervals, and the reasons for missing ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from restok.errors import InputError
from restok.metrics.codebook import codebook_metrics
from restok.metrics.frechet import Frechet
from restok.metrics.inception_score import MODES, SPLIT
from restok.metrics.intervals import Interval, jackknife, mean_and_interval, share_interval
from restok.metrics.kid import kid
from restok.metrics.mind import mind
from restok.metrics.precision_recall import precision_recall
from restok.metrics.reconstruction import psnr_ceiling
from restok.metrics.statistics import Statistics

REFERENCES = 10_000      # images of the reference that precision and recall take, evenly spaced
MISSING = {"ssim": "the images are smaller than its window, 11 pixels",
           "ms_ssim": "the images are smaller than its five scales, 176 pixels",
           "lpips": "evaluation.lpips is false, or the images are smaller than 31 pixels"}


class Comparison:
    """What is known of `samples` against `reference`. Each method adds one metric, or why it cannot be measured."""

    def __init__(self, samples: Statistics, reference: Statistics):
        self.samples, self.reference = samples, reference
        self.metrics, self.intervals, self.refused, self.warnings = {}, {}, {}, []
        self.without: dict[str, Callable[[int | None], float]] = {}       # of a distance's name: its value without a group

    def _add(self, name: str, value: float, interval: Interval | None) -> None:
        self.metrics[name], self.intervals[name] = value, interval and list(interval)

    def refuse(self, reason: str, *names: str) -> None:
        for name in names:
            self.metrics[name], self.intervals[name], self.refused[name] = None, None, reason

    def take(self, other: "Comparison") -> None:
        """What another network says of the same images."""
        self.metrics |= other.metrics
        self.intervals |= other.intervals
        self.refused |= other.refused
        self.warnings += other.warnings
        self.without |= other.without

    def distances(self, names: Mapping[str, str]) -> None:
        """Those that have names: 'distance', 'spatial', 'kernel', 'sliced'."""
        self.distance(names["distance"], "pooled")
        if "spatial" in names:
            self.distance(names["spatial"], "spatial")
        self.kernel_distance(names["kernel"])
        self.sliced_distance(names["sliced"])

    def distance(self, name: str, part: str) -> None:
        """Over the 'pooled' or the 'spatial' features."""
        samples, reference = self.samples, self.reference
        for statistics, role in ((samples, "samples"), (reference, "reference")):
            if statistics.n == 1 and part not in statistics.published:
                return self.refuse(f"{statistics.name} ({role}) is one image, and a covariance takes 2: give more", name)
        if not reference.has(part):
            ways = "images" if part == "pooled" else "a published file with mu_s and sigma_s, or images"
            return self.refuse(f"the reference, {reference.name}, has no statistics of these features; take {ways}", name)
        try:
            to_reference = Frechet(reference.gaussian(part).to(samples.seen.device))
            without = cache(lambda group: to_reference(samples.gaussian(part, group)))
            self._add(name, *jackknife(without, least=0))
            self.without[name] = without
        except InputError as error:      # statistics that are no Gaussian's: the other metrics stand
            self.refuse(str(error), name)

    def mean_ratio(self, name: str, units: Mapping[str, float]) -> None:
        """The mean of measured distances, each in a unit of its own; a group is left out of all of them at once."""
        def without(group: int | None) -> float:
            return fmean(self.without[each](group) / unit for each, unit in units.items())

        self._add(name, *jackknife(without, least=0))

    def kernel_distance(self, name: str) -> None:
        if pair := self._kept(4, name):
            measured = kid(*pair)
            self._add(name, measured.value, measured.interval(min(map(len, pair))))

    def sliced_distance(self, name: str) -> None:
        if pair := self._kept(2, name):
            self._add(name, *mind(*pair))

    def _kept(self, least: int, name: str) -> tuple[Tensor, Tensor] | None:
        """The features that both sides keep; None, and the metric refused, where they are of fewer images than it takes."""
        samples, references = self.samples.kept, self.reference.kept.to(self.samples.kept.device)
        if min(len(samples), len(references)) >= least:
            return samples, references
        self.refuse(f"it takes {least} images on each side, not {len(samples)} of {self.samples.name} and {len(references)} "
                     f"of {self.reference.name}: give both as images", name)
        return None

    def score(self, name: str, own: str) -> None:
        """The protocol's own mode under the plain name, the others beside it."""
        score, n = self.samples.score, self.samples.n
        called = {mode: name if mode == own else f"{name} {mode}" for mode in MODES}
        if score is None:
            return self.refuse("the feature network's weights have no classifier; of Inception, take the whole file",
                               *called.values())
        in_order = n > SPLIT and (self.samples.facts["images"]["in_order"] or score.sorted_by_class)
        for mode, metric in called.items():
            if mode == "ADM splits" and in_order:
                self.refuse(f"the samples are sorted by class, so a score in {MODES[mode]} collapses; shuffle them", metric)
            else:
                self._add(metric, *jackknife(lambda group, mode=mode: score.value(mode, group), least=1, most=score.classes))
        if own == "ADM splits" and n > SPLIT and n % SPLIT:
            self.warnings.append(f"the last split of {name} holds {n % SPLIT} images, the others {SPLIT}: take a multiple of "
                                 f"{SPLIT} samples")

    def precision_recall(self, neighbours: int, distances: Sequence[str], of: str = "") -> None:
        """Once for each kind of distances; 'exact' has the plain names, with what they are `of`."""
        samples = self.samples.kept
        references = self.reference.kept[evenly(len(self.reference.kept))].to(samples.device)
        for mode in distances:
            names = [f"{name}{of}" if mode == "exact" else f"{name}{of} {mode}" for name in ("precision", "recall")]
            if min(len(samples), len(references)) <= neighbours:
                self.refuse(f"it takes more than {neighbours} images on each side, not {len(samples)} of {self.samples.name} "
                             f"and {len(references)} of {self.reference.name} (a reference without 'arr_0' has none)", *names)
                continue
            shares = precision_recall(samples, references, neighbours, mode)
            for name, share, n in zip(names, shares, (len(samples), len(references)), strict=True):
                self._add(name, share, share_interval(share, n))

    def class_accuracy(self) -> None:
        """The share of images that the network assigns to their label."""
        if reason := self._no_accuracy():
            return self.refuse(reason, "class_accuracy")
        asked = int(self.samples.asked.sum())
        share = int(self.samples.right.sum()) / asked
        self._add("class_accuracy", share, share_interval(share, asked))

    def per_class_accuracy(self) -> None:
        """One value a class, None for a class not asked for."""
        if reason := self._no_accuracy():
            return self.refuse(reason, "per_class_accuracy")
        pairs = list(zip(self.samples.right.tolist(), self.samples.asked.tolist(), strict=True))
        self.metrics["per_class_accuracy"] = [right / n if n else None for right, n in pairs]
        self.intervals["per_class_accuracy"] = [list(share_interval(right / n, n)) if n else None for right, n in pairs]

    def _no_accuracy(self) -> str | None:
        if not self.samples.facts["knows_labels"]:
            return "the feature network was trained on other classes than the images'"
        return None if self.samples.asked.sum() else f"{self.samples.name} has no labels"

    def likeness(self) -> None:
        """PSNR, SSIM, MS-SSIM, LPIPS."""
        measured = self.samples.likeness
        ceiling = psnr_ceiling(3 * int(np.prod(self.samples.facts["images"]["size"])))
        bounds = {"psnr": (0, ceiling), "ssim": (-1, 1), "ms_ssim": (0, 1), "lpips": (0,)}
        for name, (least, *most) in bounds.items():
            if name in measured:
                self._add(name, *mean_and_interval(*measured[name].tolist(), least, *most))
            else:
                self.refuse(MISSING[name], name)
        if perfect := int(measured["perfect"][1]):
            self.warnings.append(f"{perfect} of {self.samples.n} reconstructions are perfect; their PSNR counts as "
                                 f"{ceiling:.2f} dB")

    def codebook(self) -> None:
        """Eq. 5-6, over all tokens and by level."""
        levels, counts = self.samples.facts["levels"], self.samples.codes                  # g l k
        if not levels:
            return self.refuse("the codes were not given", "codebook")

        @cache
        def described(group):
            kept = [other for other in range(len(counts)) if other != group]
            whole = codebook_metrics(counts[kept].sum(0), levels)
            return [whole, *whole["levels"]]

        def interval(name, i):
            found = jackknife(lambda group: described(group)[i][name], *bounds[name])[1]
            return found and list(found)

        size = counts.shape[2]
        bounds = {"usage": (0, 1), "dead": (0, size), "entropy": (0, math.log2(size)), "perplexity": (1, size)}
        whole, *by_level = [{name: interval(name, i) for name in bounds} for i in range(1 + len(levels))]
        self.metrics["codebook"], self.intervals["codebook"] = described(None)[0], whole | {"levels": by_level}
        collapsed = [str(level["level"]) for level in described(None)[1:] if level["used"] == 1]
        if collapsed and counts[:, 0].sum() > levels[0]:     # more than one image
            self.warnings.append(f"of the codebook's {len(levels)} levels, {', '.join(collapsed)} used one code for all "
                                 "images: such a level says nothing of an image")


def evenly(n: int) -> Tensor:
    """The images of n that stand for a reference."""
    return torch.linspace(0, n - 1, min(n, REFERENCES), dtype=torch.float64).round().long()
