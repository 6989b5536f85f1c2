"""Results of `restok evaluate` side by side, whatever made their images: which differences are larger than chance."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from restok.config.load import ConfigError
from restok.experiments.results import Result
from restok.files.loading import load_record
from restok.metrics.intervals import side
from restok.metrics.results import ComparisonError, require_comparable
from restok.reporting.beside import APART, Against, Metric, better_lower, judged
from restok.reporting.cells import Measure

CODEBOOK = "entropy", "usage"               # of the use of the codebook, what is shown


def compare_files(paths: Sequence[Path]) -> list[Metric]:
    """Every metric that a result has, the first result being what the others are held against. A difference counts where the
    95 % intervals, of the chance of the images, do not overlap.

    Raises ConfigError for a file named twice, FileError for what is no result, ComparisonError for what does not compare:
    another protocol, network, reference, size or number of images.
    """
    if twice := [str(path) for path, count in Counter(paths).items() if count > 1]:
        raise ConfigError(f"{twice[0]}: named twice; name each result once")
    results = [load_record(path, Result) for path in paths]
    require_comparable(list(zip(paths, results, strict=True)))
    if len({result["n"] for result in results}) > 1:
        counts = ", ".join(f"{path} {result['n']}" for path, result in zip(paths, results, strict=True))
        raise ComparisonError(f"measured on different numbers of images, on which distances depend: {counts}; measure as many")
    every = [dict(_measures(result)) for result in results]
    return [_metric(name, results, every) for name in dict.fromkeys(name for one in every for name in one)]


def _measures(result: Mapping[str, Any]) -> Iterator[tuple[str, Measure]]:
    """But for what is no single number."""
    for name, value in result["metrics"].items():
        interval = result["intervals"][name]
        if name == "codebook":
            yield from ((f"{name} {part}", _measure(value and value[part], interval and interval[part])) for part in CODEBOOK)
        elif name not in APART:
            yield name, _measure(value, interval)


def _measure(value: float | None, interval: Sequence[float] | None) -> Measure:
    return Measure(value, None, *(interval or (None, None)))


def _metric(name: str, results: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Measure]]) -> Metric:
    measures = tuple(one.get(name, Measure(None)) for one in every)
    refused = tuple(result["refused"].get(name.partition(" ")[0] if name.startswith("codebook") else name,
                                          "" if name in one else "was not measured")
                    for result, one in zip(results, every, strict=True))
    lower = better_lower(name)
    against = (None, *(_against(measures[0], other, lower) for other in measures[1:]))
    return Metric(name, results[0]["protocol"], lower, measures, refused, against)


def _against(base: Measure, own: Measure, lower: bool) -> Against | None:
    if base.value is None or own.value is None:
        return None
    where = 0 if None in (base.low, own.low) else side(own[2:], base[2:])
    return judged(own.value - base.value, where, lower)
