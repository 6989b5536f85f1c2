"""What results of `restok evaluate` compare, and their mean over seeds. Files only, no tensors."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from restok.errors import RestokError
from restok.experiments.results import Result
from restok.files.loading import load_record
from restok.metrics.intervals import seeds_interval

COMPARED = {"features": ("sha256", "name", "resize"), "reference": ("digest", "size", "published"), "samples": ("size",),
            "originals": ("digest",)}
EQUAL = ("protocol", "likeness", "neighbours")                   # as a whole


class ComparisonError(RestokError):
    """Values that were not measured alike; the message names the files, the difference and the remedy."""


def require_comparable(results: Sequence[tuple[Path | str, dict]]) -> None:
    """Raises ComparisonError unless all (path, result) were measured by one protocol, with one feature network, against one
    reference, on images of one size and, where they are reconstructions, of the same originals."""
    seen: dict[str, tuple[Path | str, object]] = {}
    for path, result in results:
        for name, value in _compared(result).items():
            first, wanted = seen.setdefault(name, (path, value))        # one may have been measured by more networks
            if value != wanted:
                raise ComparisonError(f"{first} and {path} do not compare: {name} differ, {wanted} and {value}; measure "
                                      "one again like the other")


def _compared(result: dict) -> dict:
    """What two results that compare have in common, by its name."""
    parts = {f"{part} {key}": (result[part] or {}).get(key) or None for part, keys in COMPARED.items() for key in keys}
    also = result.get("also") or {}                          # earlier versions had one network
    parts |= {f"{kind} {key}": one.get(key) for kind, one in also.items() for key in COMPARED["features"]}
    return {key: result[key] for key in EQUAL} | parts


def average(paths: Sequence[Path]) -> dict:
    """Mean, standard deviation (n - 1) and 95 % interval (Student's t) of every number over runs that differ in their seed.

    "dropped" names the metrics that a run does not have. Raises ComparisonError for fewer than two, for what does not
    compare, other numbers of images, and one seed given twice, FileError for what is no result.
    """
    results = [(path, load_record(path, Result)) for path in paths]
    if len(results) < 2:
        raise ComparisonError("a spread over seeds takes two results or more")
    require_comparable(results)
    seeds, counts = [result["seed"] for _, result in results], {result["n"] for _, result in results}
    if len(set(seeds)) != len(seeds) or None in seeds:
        raise ComparisonError(f"seeds {seeds} of {', '.join(map(str, paths))}: give results of different seeds")
    if len(counts) > 1:
        raise ComparisonError(f"{', '.join(map(str, paths))}: over {sorted(counts)} images; distances depend on their number")
    one, metrics, dropped = results[0][1], {}, {}
    for name in sorted({name for _, result in results for name in result["metrics"]}):
        values = [_number(result, name) for _, result in results]
        lacking = [str(path) for (path, _), value in zip(results, values, strict=True) if value is None]
        if lacking:
            dropped[name] = f"no number in {', '.join(lacking)}"
            continue
        metrics[name] = {"mean": mean(values), "deviation": stdev(values), "interval": list(seeds_interval(values))}
    return {"kind": "average", "protocol": one["protocol"], "seeds": seeds, "n": one["n"], "metrics": metrics,
            "dropped": dropped, "features": one["features"], "reference": one["reference"],
            "results": [str(path) for path in paths]}


def _number(result: dict, name: str) -> float | None:
    value = result["metrics"][name] if name in result["metrics"] else None
    return value if isinstance(value, int | float) else None
