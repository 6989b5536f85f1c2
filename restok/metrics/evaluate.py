"""The two protocols: what a set of images is worth against its reference. Each value has its 95 % interval, or the reason why
it is not measured, and each result says what was measured, how, and against what."""

from collections.abc import Callable

from restok.config import Evaluation
from restok.metrics.comparison import Comparison, evenly
from restok.metrics.fdr6 import ABOUT, NAME, fdr6
from restok.metrics.features import JUDGES, described, metric_names
from restok.metrics.inception_score import MODES
from restok.metrics.results import ComparisonError
from restok.metrics.statistics import Statistics

PUBLISHED_N = 50_000     # images of the paper's protocols
INTERVALS = ("95 %, for the chance of these n images, not for the bias at this n: jackknife over 10 groups (distances, sliced "
             "distances, scores, codebook), standard error (means over images), Wilson (shares), subsampling (kernel "
             "distance). Precision and recall take the balls as given: precision's is for the chance of the samples, recall's "
             "for the references'")


def evaluate_generation(samples: Statistics, reference: Statistics, settings: Evaluation) -> dict:
    """Samples against a reference set (ADM): FID, sFID, KID, MIND, the score in contiguous splits of 5,000, precision, recall,
    and whether each image shows the class asked for where the feature network knows.

    Raises ComparisonError for another feature network or image size, StatisticsError where images are missing.
    """
    names = metric_names(samples.facts["features"]["kind"])
    comparison = _distances(samples, reference, names)
    comparison.score(names["score"], "ADM splits")
    comparison.precision_recall(settings.neighbours, settings.distances)
    comparison.class_accuracy()
    comparison.per_class_accuracy()
    _others(comparison, dict, settings.neighbours, settings)
    asked = "fdr6" in settings.also
    if asked:
        fdr6(comparison)
    return _result("generation", comparison, names) | {"score": MODES["ADM splits"], "neighbours": settings.neighbours} | (
        {NAME: ABOUT} if asked else {})


def evaluate_candidate(samples: Statistics, reference: Statistics) -> dict:
    """What chooses among settings of one generator: the distances of `evaluate_generation`, without the rest."""
    names = metric_names(samples.facts["features"]["kind"])
    names = {name: names[name] for name in ("distance", "kernel", "sliced")}
    return _result("generation", _distances(samples, reference, names), names) | {"score": None, "neighbours": None}


def evaluate_reconstruction(samples: Statistics, reference: Statistics, settings: Evaluation) -> dict:
    """Reconstructions against their originals (TiTok): rFID, KID, MIND, the score in one split, PSNR, SSIM, MS-SSIM, LPIPS, and
    the use of the codebook (Eq. 5-6), each of the last five where it was measured. Raises as `evaluate_generation` does."""
    names = metric_names(samples.facts["features"]["kind"])
    names = _reconstructions(names)
    comparison = _distances(samples, reference, names)
    comparison.score(names["score"], "one split")
    comparison.class_accuracy()
    comparison.likeness()
    comparison.codebook()
    _others(comparison, _reconstructions, None, settings)
    return _result("reconstruction", comparison, names) | {"score": MODES["one split"], "neighbours": None}


def require_alike(samples: Statistics, reference: Statistics) -> None:
    """Raises ComparisonError unless both are of one feature network and one image size, whether or not they are whole; further
    networks that both have are the same, too."""
    ours, theirs = samples.facts, reference.facts
    pairs = [("the feature network", ours, theirs)]
    pairs += [(kind, one.facts, reference.also[kind].facts) for kind, one in samples.also.items() if kind in reference.also]
    for network, one, other in pairs:
        for key, value in one["features"].items():
            if other["features"][key] != value:
                raise ComparisonError(f"{samples.name} was measured with {key} {value} of {network}, {reference.name} with "
                                      f"{other['features'][key]}; measure both with one network")
    sizes = ours["images"]["size"], theirs["images"]["size"]
    if None not in sizes and sizes[0] != sizes[1]:
        raise ComparisonError(f"{samples.name} has images of {'x'.join(map(str, sizes[0]))}, {reference.name} of "
                                f"{'x'.join(map(str, sizes[1]))}: bring both to one size (--crop)")
    if samples.published:
        raise ComparisonError(f"{samples.name}: published statistics are a reference; give samples as images")


def _distances(samples: Statistics, reference: Statistics, names: dict[str, str]) -> Comparison:
    """What every protocol begins with."""
    require_alike(samples, reference)
    samples.require_whole()
    reference.require_whole()
    comparison = Comparison(samples, reference)
    comparison.distances(names)
    return comparison


def _others(comparison: Comparison, called: Callable[[dict[str, str]], dict[str, str]], neighbours: int | None,
            settings: Evaluation) -> None:
    """What further networks say of the same images, under what the names of metrics are `called`; with precision and recall
    by so many neighbours."""
    samples, reference = comparison.samples, comparison.reference
    for kind in dict.fromkeys([*samples.also, *(JUDGES[name].kind for name in settings.networks[1:])]):
        names, ours, theirs = called(metric_names(kind)), samples.also.get(kind), reference.also.get(kind)
        if ours is None or theirs is None:
            shares = [f"{name}-{kind}" for name in ("precision", "recall")] if neighbours else []
            lacking = samples.name if ours is None else f"the reference, {reference.name},"
            comparison.refuse(f"{lacking} was not measured with {kind}: measure it again, with the same networks",
                              names["distance"], names["kernel"], names["sliced"], *shares)
            continue
        other = Comparison(ours, theirs)
        other.distances(names)
        if neighbours:
            other.precision_recall(neighbours, ("exact",), f"-{kind}")
        comparison.take(other)
        comparison.warnings += [] if names["distance"] in other.refused else _few(ours, theirs, names["distance"])


def _reconstructions(names: dict[str, str]) -> dict[str, str]:
    """How the metrics of reconstructions are called."""
    return {"distance": f"r{names['distance']}", **{name: names[name] for name in ("kernel", "sliced", "score")}}


def _warnings(samples: Statistics, reference: Statistics, distance: str) -> list[str]:
    """What makes the numbers less sure than they look."""
    warnings = _few(samples, reference, distance)
    if samples.facts["features"]["kind"] == "inception":
        if samples.n < PUBLISHED_N:
            warnings.append(f"{distance} over {samples.n} images does not compare with the paper's, which is over "
                            f"{PUBLISHED_N}")
        if caution := reference.facts["images"].get("caution"):
            warnings.append(caution)
    asked = samples.asked
    if len(asked) and asked.min() < 0.9 * asked.max():     # a stratified split of a small set is not exactly even
        warnings.append(f"the classes are unbalanced: from {asked.min()} to {asked.max()} images each")
    elif 0 < len(asked) < len(reference.asked):
        warnings.append(f"the classes are unbalanced: the samples have {len(asked)}, the reference {len(reference.asked)}")
    for statistics in (samples, reference):
        if 0 < len(statistics.kept) < statistics.n:
            warnings.append(f"{statistics.name}: precision, recall, kernel and sliced distance take {len(statistics.kept)} of "
                         f"{statistics.n} images, evenly spaced")
    return warnings


def _few(samples: Statistics, reference: Statistics, distance: str) -> list[str]:
    """Of fewer images than a distance over these features takes."""
    dims = samples.facts["features"]["dims"]
    return [f"{statistics.n} {role} are fewer than 10 x {dims} feature dimensions: {distance} is biased upward, by about 1/n; "
            "the kernel distance beside it is not" for statistics, role in ((samples, "samples"), (reference, "references"))
            if "pooled" not in statistics.published and statistics.n < 10 * dims]


def _result(protocol: str, comparison: Comparison, names: dict[str, str]) -> dict:
    samples, reference = comparison.samples, comparison.reference
    images, theirs = samples.facts["images"], reference.facts["images"]
    asked = samples.asked
    balanced = bool(asked.min() == asked.max() and len(asked) >= len(reference.asked)) if len(asked) else None
    return {
        "protocol": protocol, "n": samples.n, "metrics": comparison.metrics, "intervals": comparison.intervals,
        "refused": comparison.refused, "names": names, "interval": INTERVALS,
        "features": described(samples.facts["features"]) | {"batch_size": samples.facts["batch_size"]},
        "also": {kind: described(one.facts["features"]) for kind, one in samples.also.items()},
        "samples": {"name": images["name"], "digest": images["digest"], "size": images["size"], "classes": len(asked) or None,
                    "balanced": balanced, "kept": len(samples.kept)},
        "rounding": images["rounding"],
        "originals": images["originals"],
        "likeness": samples.facts["likeness"],
        "reference": {"name": theirs["name"], "digest": theirs["digest"], "n": reference.n, "size": theirs["size"],
                      "rounding": theirs["rounding"], "published": sorted(reference.published),
                      "compared": len(evenly(len(reference.kept)))},
        "warnings": _warnings(samples, reference, names["distance"]) + comparison.warnings}

