"""What an evaluation found, as metrics of MLflow: the quantities of the tables first, under the names that they deserve."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from restok.files.making import seconds_of

Values = Iterator[tuple[str, float]]
WITHOUT = "without guidance"        # what the names of such samples' values in eval/ and interval/ say


def evaluated(reconstruction: Mapping[str, Any] | None, generation: Mapping[str, Any] | None,
              unguided: Mapping[str, Any] | None) -> Values:
    """The names and values of what was measured. eval/ has what the tables compare, interval/ its bounds; the rest stands under
    reconstruction/, generation/ and, of samples without guidance, unguided/."""
    for group, record in (("reconstruction", reconstruction), ("generation", generation), ("unguided", unguided)):
        if record is None:
            continue
        names, metrics, intervals = record["names"], record["metrics"], record["intervals"]
        chief = {"reconstruction": {names["distance"]: names["distance"]},
                 "generation": {names["distance"]: f"g{names['distance']}", names.get("score"): names.get("score")},
                 "unguided": {names["distance"]: f"g{names['distance']} {WITHOUT}"}}[group]
        for key, value in metrics.items():
            if isinstance(value, (int, float)):
                yield (f"eval/{chief[key]}" if key in chief else f"{group}/{key}"), value
                if key in chief:
                    yield from _bounds(chief[key], intervals[key])
        if codebook := metrics.get("codebook"):
            for key in ("entropy", "usage"):
                yield f"eval/codebook {key}", codebook[key]
                yield from _bounds(f"codebook {key}", intervals["codebook"][key])
        yield f"{group}/images", record["n"]


def searched(search: Mapping[str, Any]) -> Values:
    """What a search for guidance chose, among how many."""
    yield "search/scale", search["chosen"]["scale"]
    yield "search/start", search["chosen"]["start"]
    yield "search/candidates", len(search["candidates"])


def costs(makings: Mapping[str, Sequence[Mapping[str, Any]]]) -> Values:
    """By stage: hours of processes, of which each takes one GPU where it has one; and the most memory that one of them had."""
    for stage, calls in makings.items():
        if (seconds := seconds_of(calls)) is not None:
            yield f"cost/{stage} hours", seconds / 3600
        for key, name in (("memory_gb", "memory GB"), ("gpu_memory_gb", "GPU memory GB")):
            if known := [one[key] for one in calls if one.get(key) is not None]:
                yield f"cost/{stage} {name}", max(known)


def _bounds(name: str, interval: Sequence[float] | None) -> Values:
    if interval:
        yield f"interval/{name} low", interval[0]
        yield f"interval/{name} high", interval[1]
