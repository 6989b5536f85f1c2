"""The two protocols: what a set of images is worth against its reference. Each value has its 95 % interval, or the reason why
it is not measured, and each result says what was measured, how, and against what."""

import numpy as np
import torch
from torch import Tensor

from restok.config import Evaluation
from restok.metrics.codebook import codebook_metrics
from restok.metrics.features import metric_names
from restok.metrics.frechet import Frechet
from restok.metrics.inception_score import MODES, SPLIT
from restok.metrics.jackknife import Interval, jackknife, mean_interval, share_interval
from restok.metrics.kid import kid
from restok.metrics.precision_recall import precision_recall
from restok.metrics.reconstruction import psnr_ceiling
from restok.metrics.results import ComparisonError
from restok.metrics.statistics import Statistics

REFERENCES = 10_000      # images of the reference that precision and recall take, evenly spaced
PUBLISHED_N = 50_000     # images of the paper's protocols
MISSING = {"ms_ssim": "the images are smaller than its five scales, 176 pixels",
           "lpips": "evaluation.lpips is false, or the images are smaller than 31 pixels"}
INTERVALS = ("95 %, for the chance of these n images, not for the bias at this n: jackknife over 10 groups (distances, scores, "
             "codebook), standard error (means over images), Wilson (shares), subsampling (kernel distance). Precision and "
             "recall take the balls as given: precision's is for the chance of the samples, recall's for the references'")


class Sheet:
    """Values with their intervals, and the reasons for those that are missing."""

    def __init__(self):
        self.metrics, self.intervals, self.refused = {}, {}, {}

    def add(self, name: str, value: float, interval: Interval | None) -> None:
        self.metrics[name], self.intervals[name] = value, interval and list(interval)

    def refuse(self, reason: str, *names: str) -> None:
        for name in names:
            self.metrics[name], self.intervals[name], self.refused[name] = None, None, reason


def evaluate_generation(samples: Statistics, reference: Statistics, settings: Evaluation) -> dict:
    """Samples against a reference set (ADM): FID, sFID, KID, the score in contiguous splits of 5,000, precision, recall, and
    whether each image shows the class asked for where the feature network knows.

    Raises ComparisonError for another feature network or image size, StatisticsError where images are missing.
    """
    names = metric_names(samples.facts["features"]["kind"])
    _check(samples, reference)
    sheet, warnings = Sheet(), _warnings(samples, reference, names["distance"])
    _distance(sheet, names["distance"], "pooled", samples, reference)
    if "spatial" in names:
        _distance(sheet, names["spatial"], "spatial", samples, reference)
    _kernel_distance(sheet, names["kernel"], samples, reference)
    warnings += _score(sheet, names["score"], "ADM splits", samples)
    _precision_recall(sheet, samples, reference, settings)
    _accuracy(sheet, samples)
    _per_class_accuracy(sheet, samples)
    return _result("generation", sheet, names, samples, reference, warnings) | {
        "score": MODES["ADM splits"], "neighbours": settings.neighbours}


def evaluate_candidate(samples: Statistics, reference: Statistics) -> dict:
    """What chooses among settings of one generator: the distances of `evaluate_generation`, without the rest."""
    names = metric_names(samples.facts["features"]["kind"])
    names = {"distance": names["distance"], "kernel": names["kernel"]}
    _check(samples, reference)
    sheet = Sheet()
    _distance(sheet, names["distance"], "pooled", samples, reference)
    _kernel_distance(sheet, names["kernel"], samples, reference)
    warnings = _warnings(samples, reference, names["distance"])
    return _result("generation", sheet, names, samples, reference, warnings) | {"score": None, "neighbours": None}


def evaluate_reconstruction(samples: Statistics, reference: Statistics) -> dict:
    """Reconstructions against their originals (TiTok): rFID, KID, the score in one split, PSNR, SSIM, MS-SSIM, LPIPS, and the
    use of the codebook (Eq. 5-6), each of the last five where it was measured. Raises as `evaluate_generation` does."""
    names = metric_names(samples.facts["features"]["kind"])
    names = {"distance": f"r{names['distance']}", "kernel": names["kernel"], "score": names["score"]}
    _check(samples, reference)
    sheet, warnings = Sheet(), _warnings(samples, reference, names["distance"])
    _distance(sheet, names["distance"], "pooled", samples, reference)
    _kernel_distance(sheet, names["kernel"], samples, reference)
    warnings += _score(sheet, names["score"], "one split", samples)
    _accuracy(sheet, samples)
    warnings += _likeness(sheet, samples)
    _codebook(sheet, samples)
    return _result("reconstruction", sheet, names, samples, reference, warnings) | {
        "score": MODES["one split"], "neighbours": None}


def require_alike(samples: Statistics, reference: Statistics) -> None:
    """Raises ComparisonError unless both are of one feature network and one image size, whether or not they are whole."""
    ours, theirs = samples.facts, reference.facts
    for key, value in ours["features"].items():
        if theirs["features"][key] != value:
            raise ComparisonError(f"{samples.name} was measured with {key} {value} of the feature network, {reference.name} "
                                    f"with {theirs['features'][key]}; measure both with one network")
    sizes = ours["images"]["size"], theirs["images"]["size"]
    if None not in sizes and sizes[0] != sizes[1]:
        raise ComparisonError(f"{samples.name} has images of {'x'.join(map(str, sizes[0]))}, {reference.name} of "
                                f"{'x'.join(map(str, sizes[1]))}: bring both to one size (--crop)")
    if samples.published:
        raise ComparisonError(f"{samples.name}: published statistics are a reference; give samples as images")


def _check(samples: Statistics, reference: Statistics) -> None:
    require_alike(samples, reference)
    samples.require_whole()
    reference.require_whole()


def _distance(sheet: Sheet, name: str, part: str, samples: Statistics, reference: Statistics) -> None:
    if not reference.has(part):
        return sheet.refuse(f"the reference, {reference.name}, has no statistics of these features; take a published file with "
                            "mu_s and sigma_s, or images", name)
    distance = Frechet(reference.gaussian(part).to(samples.seen.device))
    sheet.add(name, *jackknife(lambda group: distance(samples.gaussian(part, group)), least=0))


def _kernel_distance(sheet: Sheet, name: str, samples: Statistics, reference: Statistics) -> None:
    if len(reference.kept) < 4 or len(samples.kept) < 4:
        return sheet.refuse(f"it takes 4 images on each side, not {len(samples.kept)} of {samples.name} and "
                            f"{len(reference.kept)} of {reference.name}: give both as images", name)
    found = kid(samples.kept, reference.kept.to(samples.kept.device))
    sheet.add(name, found.value, found.interval(min(len(samples.kept), len(reference.kept))))


def _score(sheet: Sheet, name: str, own: str, samples: Statistics) -> list[str]:
    """The protocol's own score under the plain name, the others beside it."""
    called = {mode: name if mode == own else f"{name} {mode}" for mode in MODES}
    if samples.score is None:
        sheet.refuse("the feature network's weights have no classifier; take the whole file", *called.values())
        return []
    for mode, metric in called.items():
        if mode == "ADM splits" and _sorted_by_class(samples):
            sheet.refuse(f"the samples are sorted by class, and a score in {MODES[mode]} would collapse; shuffle them", metric)
        else:
            sheet.add(metric, *jackknife(lambda group, mode=mode: samples.score.value(mode, group), least=1))
    rest = samples.n % SPLIT
    if own == "ADM splits" and samples.n > SPLIT and rest:
        return [f"the last split of {name} holds {rest} images, the others {SPLIT}: take a multiple of {SPLIT} samples"]
    return []


def _sorted_by_class(samples: Statistics) -> bool:
    """As the labels say, or as the predictions do."""
    return samples.n > SPLIT and (samples.facts["images"]["in_order"] or samples.score.sorted_by_class)


def _precision_recall(sheet: Sheet, samples: Statistics, reference: Statistics, settings: Evaluation) -> None:
    for mode in settings.distances:
        names = [f"{name}{'' if mode == 'exact' else f' {mode}'}" for name in ("precision", "recall")]
        fewest = min(len(samples.kept), len(reference.kept))
        if fewest <= settings.neighbours:
            sheet.refuse(f"it takes more than {settings.neighbours} images on each side, not {len(samples.kept)} of "
                         f"{samples.name} and {len(reference.kept)} of {reference.name} (a reference without 'arr_0' has none)",
                         *names)
            continue
        references = reference.kept[_evenly(len(reference.kept))].to(samples.kept.device)
        found = precision_recall(samples.kept, references, settings.neighbours, mode)
        for name, share, n in zip(names, found, (len(samples.kept), len(references)), strict=True):
            sheet.add(name, share, share_interval(share, n))


def _evenly(n: int) -> Tensor:
    return torch.linspace(0, n - 1, min(n, REFERENCES), dtype=torch.float64).round().long()


def _no_accuracy(samples: Statistics) -> str | None:
    if not samples.facts["knows_labels"]:
        return "the feature network was trained on other classes than the images'"
    return None if samples.asked.sum() else f"{samples.name} has no labels"


def _accuracy(sheet: Sheet, samples: Statistics) -> None:
    if reason := _no_accuracy(samples):
        return sheet.refuse(reason, "class_accuracy")
    share, n = (samples.right.sum() / samples.asked.sum()).item(), int(samples.asked.sum())
    sheet.add("class_accuracy", share, share_interval(share, n))


def _per_class_accuracy(sheet: Sheet, samples: Statistics) -> None:
    """One value a class, None for a class not asked for."""
    if reason := _no_accuracy(samples):
        return sheet.refuse(reason, "per_class_accuracy")
    pairs = list(zip(samples.right.tolist(), samples.asked.tolist(), strict=True))
    sheet.metrics["per_class_accuracy"] = [right / n if n else None for right, n in pairs]
    sheet.intervals["per_class_accuracy"] = [list(share_interval(right / n, n)) if n else None for right, n in pairs]


def _likeness(sheet: Sheet, samples: Statistics) -> list[str]:
    for name in ("psnr", "ssim", "ms_ssim", "lpips"):
        if name in samples.likeness:
            n, total, squares = samples.likeness[name].tolist()
            sheet.add(name, total / n, mean_interval(n, total, squares))
        else:
            sheet.refuse(MISSING[name], name)
    perfect = int(samples.likeness["perfect"][1]) if "perfect" in samples.likeness else 0
    ceiling = psnr_ceiling(3 * int(np.prod(samples.facts["images"]["size"])))
    return [f"{perfect} of {samples.n} reconstructions are perfect; their PSNR counts as {ceiling:.2f} dB"] if perfect else []


def _codebook(sheet: Sheet, samples: Statistics) -> None:
    levels = samples.facts["levels"]
    if not levels:
        return sheet.refuse("the codes were not given", "codebook")

    def described(group):
        kept = [other for other in range(len(samples.codes)) if other != group]
        found = codebook_metrics(samples.codes[kept].sum(0), levels)
        return [found, *found["levels"]]

    values = {group: described(group) for group in (None, *range(len(samples.codes)))}
    bounds = {"usage": (0, 1), "dead": (0, samples.facts["codebook_size"]), "entropy": (0,), "perplexity": (1,)}
    whole, *by_level = [{name: list(jackknife(lambda group, name=name, i=i: values[group][i][name], *bounds[name])[1])
                         for name in bounds} for i in range(1 + len(levels))]
    sheet.metrics["codebook"], sheet.intervals["codebook"] = values[None][0], whole | {"levels": by_level}


def _warnings(samples: Statistics, reference: Statistics, distance: str) -> list[str]:
    """What makes the numbers less sure than they look."""
    features, found = samples.facts["features"], []
    for statistics, role in ((samples, "samples"), (reference, "references")):
        if "pooled" not in statistics.published and statistics.n < 10 * features["dims"]:
            found.append(f"{statistics.n} {role} are fewer than 10 x {features['dims']} feature dimensions: {distance} is "
                         "biased upward, by about 1/n; the kernel distance beside it is not")
    if features["kind"] == "inception" and samples.n < PUBLISHED_N:
        found.append(f"{distance} over {samples.n} images does not compare with the paper's, which is over {PUBLISHED_N}")
    asked = samples.asked
    if len(asked) and asked.min() < 0.9 * asked.max():     # a stratified split of a small set is not exactly even
        found.append(f"the classes are unbalanced: from {asked.min()} to {asked.max()} images each")
    elif 0 < len(asked) < len(reference.asked):
        found.append(f"the classes are unbalanced: the samples have {len(asked)}, the reference {len(reference.asked)}")
    for statistics in (samples, reference):
        if 0 < len(statistics.kept) < statistics.n:
            found.append(f"{statistics.name}: precision, recall and the kernel distance take {len(statistics.kept)} of "
                         f"{statistics.n} images, evenly spaced")
    return found


def _result(protocol: str, sheet: Sheet, names: dict, samples: Statistics, reference: Statistics, warnings: list[str]) -> dict:
    images, theirs = samples.facts["images"], reference.facts["images"]
    asked = samples.asked
    balanced = bool(asked.min() == asked.max() and len(asked) >= len(reference.asked)) if len(asked) else None
    return {
        "protocol": protocol, "n": samples.n, "metrics": sheet.metrics, "intervals": sheet.intervals, "refused": sheet.refused,
        "names": names, "interval": INTERVALS,
        "features": samples.facts["features"] | {"batch_size": samples.facts["batch_size"]},
        "samples": {"name": images["name"], "digest": images["digest"], "size": images["size"], "classes": len(asked) or None,
                    "balanced": balanced, "kept": len(samples.kept)},
        "rounding": images["rounding"],
        "originals": images["originals"],
        "likeness": samples.facts["likeness"],
        "reference": {"name": theirs["name"], "digest": theirs["digest"], "n": reference.n, "size": theirs["size"],
                      "rounding": theirs["rounding"], "published": sorted(reference.published),
                      "compared": len(_evenly(len(reference.kept))), "made": reference.made},
        "made": samples.made, "warnings": warnings}

