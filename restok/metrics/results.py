"""What results of `restok evaluate` compare, and their mean over seeds. Files only, no tensors."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from restok.files import read_json

COMPARED = {"features": ("sha256", "name", "resize"), "reference": ("digest", "size"), "samples": ("size",)}


class ComparisonError(ValueError):
    """Values that were not measured alike; the message names the files, the difference and the remedy."""


def require_comparable(results: Sequence[tuple[Path | str, dict]]) -> None:
    """Raises ComparisonError unless all (path, result) were measured by one protocol, with one feature network, against one
    reference, on images of one size."""
    (first, one), *others = results
    for path, other in others:
        if one["protocol"] != other["protocol"]:
            raise ComparisonError(f"{first} and {path}: protocols {one['protocol']} and {other['protocol']} do not compare")
        for part, keys in COMPARED.items():
            for key in keys:
                if one[part][key] != other[part][key]:
                    raise ComparisonError(f"{first} and {path} do not compare: {part} {key} differ, {one[part][key]} and "
                                          f"{other[part][key]}; measure one again like the other")


def average(paths: Sequence[Path]) -> dict:
    """Mean and standard deviation (n - 1) of every number over runs that differ in their seed.

    Raises ComparisonError for fewer than two, for what does not compare, other numbers of images, and one seed given twice.
    """
    results = [(path, read_json(path)) for path in paths]
    if len(results) < 2:
        raise ComparisonError("a spread over seeds takes two results or more")
    require_comparable(results)
    seeds, counts = [result["seed"] for _, result in results], {result["n"] for _, result in results}
    if len(set(seeds)) != len(seeds) or None in seeds:
        raise ComparisonError(f"seeds {seeds} of {', '.join(map(str, paths))}: give results of different seeds")
    if len(counts) > 1:
        raise ComparisonError(f"{', '.join(map(str, paths))}: over {sorted(counts)} images; distances depend on their number")
    metrics = {}
    for name in results[0][1]["metrics"]:
        values = [result["metrics"][name] for _, result in results]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            metrics[name] = {"mean": mean(values), "deviation": stdev(values)}
    one = results[0][1]
    return {"protocol": one["protocol"], "seeds": seeds, "n": one["n"], "metrics": metrics,
            "features": one["features"], "reference": one["reference"], "results": [str(path) for path in paths]}
