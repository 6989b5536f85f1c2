"""What `restok evaluate` writes as JSON, and its public schema: a metric is known, within its bounds and its interval, or null
for a reason. A model has what readers ask for; what else a file holds may stand beside it."""

import json
import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from restok.config.base import Count, Fraction, Positive
from restok.files.artifact import FORMAT
from restok.files.loading import Known

SLACK = 1e-6                             # of what earlier versions wrote: how far rounding took a value out of its bounds
KINDS = {                                # of metrics, by their names: what bounds them
    r"r?FID|sFID|r?FD-.+|FDr6|MIND(-.+)?": (0, math.inf), r"KID|KD-.+": (-math.inf, math.inf),
    r"IS(-.+)?( (one split|ADM splits|ten shuffled))?": (1, math.inf),
    r"(precision|recall)(-.+| adm-fp16)?|class_accuracy|ms_ssim": (0, 1), r"ssim": (-1, 1), r"psnr|lpips": (0, math.inf)}


def _upright(interval: list[float]) -> list[float]:
    if interval[0] > interval[1] + SLACK:
        raise ValueError(f"from {interval[0]} down to {interval[1]}: upside down")
    return interval


Interval = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_upright)]
Size = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class _Usage(Known):
    used: Count
    dead: Count
    usage: Fraction
    entropy: Annotated[float, Field(ge=-SLACK)]


class _Level(_Usage):
    level: Positive
    tokens: Positive


class _Codebook(_Usage):
    levels: Annotated[list[_Level], Field(min_length=1)]


class _UsageIntervals(Known):
    usage: Interval | None               # none of one image
    entropy: Interval | None


class _CodebookIntervals(_UsageIntervals):
    levels: list[_UsageIntervals]


class _Metrics(Known, extra="allow"):
    codebook: _Codebook | None = None
    per_class_accuracy: list[Fraction | None] | None = None
    __pydantic_extra__: dict[str, float | None]


class _Intervals(Known, extra="allow"):
    codebook: _CodebookIntervals | None = None
    per_class_accuracy: list[Interval | None] | None = None
    __pydantic_extra__: dict[str, Interval | None]


class Measured(Known):
    """What was measured of n images: each metric is known, within its bounds and its interval, or null for a reason."""

    n: Positive
    metrics: _Metrics
    intervals: _Intervals
    refused: dict[str, str]
    warnings: list[str]

    @model_validator(mode="after")
    def check(self) -> Self:
        intervals = self.intervals.model_dump(exclude_unset=True)
        for name, value in self.metrics.model_dump(exclude_unset=True).items():
            if name not in intervals:
                raise ValueError(f"intervals.{name}: missing")
            if (value is None) != (name in self.refused):
                raise ValueError(f"metrics.{name}: null, and refused does not say why" if value is None else
                                 f"metrics.{name}: {value}, and refused says why it was not measured")
            if name == "codebook" and value:
                self._check_codebook()
            elif name not in _Metrics.model_fields:
                _within(f"metrics.{name}", value, intervals[name], *_bounds(name))
        return self

    def _check_codebook(self) -> None:
        values, intervals = self.metrics.codebook, self.intervals.codebook
        if intervals is None or len(values.levels) != len(intervals.levels):
            raise ValueError("intervals.codebook: not one interval a level of metrics.codebook")
        pairs = zip(("", *(f"levels.{i}." for i in range(len(values.levels)))), (values, *values.levels),
                    (intervals, *intervals.levels), strict=True)
        for at, value, interval in pairs:
            for part, most in (("usage", 1), ("entropy", math.inf)):
                _within(f"metrics.codebook.{at}{part}", getattr(value, part), getattr(interval, part), 0, most)


def _bounds(name: str) -> tuple[float, float]:
    for pattern, bounds in KINDS.items():
        if re.fullmatch(pattern, name):
            return bounds
    raise ValueError(f"metrics.{name}: no metric of that name is known")


def _within(key: str, value: float | None, interval: list[float] | None, least: float = -math.inf,
            most: float = math.inf) -> None:
    low, high = interval or (least, most)
    slack = SLACK * max(1, abs(value or 0))
    if value is None and interval:
        raise ValueError(f"{key}: null, but has an interval")
    if low < least - slack or high > most + slack:
        raise ValueError(f"{key}: its interval, {low} to {high}, is not within {least} to {most}")
    if value is not None and not max(low, least) - slack <= value <= min(high, most) + slack:
        raise ValueError(f"{key}: {value} is not within {low} to {high}")


class _Names(Known):
    distance: str
    spatial: str | None = None
    kernel: str | None = None
    sliced: str | None = None
    score: str | None = None


class _Features(Known):
    sha256: str
    name: str = ""
    kind: str = ""
    resize: str = ""
    dims: Positive | None = None


class _Images(Known):
    """Of samples, or of a reference, which may be published statistics without images."""

    name: str = ""
    digest: str = ""
    n: Count = 0
    size: Size | None = None


class Result(Measured):
    """What `restok evaluate` writes."""

    format: Literal[FORMAT] = FORMAT     # of another one a reader would be misled
    protocol: Literal["generation", "reconstruction"]
    names: _Names
    features: _Features
    also: dict[str, _Features] = Field(default_factory=dict)       # further networks, by their kinds
    reference: _Images
    samples: _Images
    originals: dict[str, JsonValue] | None = None
    likeness: dict[str, JsonValue] = Field(default_factory=dict)
    neighbours: Positive | None = None
    interval: str = ""
    seed: int | None = None

    @model_validator(mode="after")
    def check_names(self) -> Self:
        if self.names.distance not in self.metrics.model_dump(exclude_unset=True):
            raise ValueError(f"names.distance: {self.names.distance!r} is not among the metrics")
        return self


class _Network(_Features):
    name: str
    kind: str
    resize: str
    dims: Positive


class _Set(_Images):
    name: str
    digest: str
    size: Size | None


class _Reference(_Set):
    n: Count
    published: list[str]                 # 'pooled', 'spatial': what the distances take in the place of its images


class WrittenResult(Result):
    """A result with all that this version writes, and on which a program may count."""

    format: Literal[FORMAT]
    kind: Literal["evaluation"]
    settings: dict[str, JsonValue]
    inputs: dict[str, str]               # the sha256 of each
    paths: dict[str, str]
    made: list[dict[str, JsonValue]]
    digest: str
    features: _Network
    also: dict[str, _Network]
    reference: _Reference
    samples: _Set
    originals: dict[str, JsonValue] | None
    likeness: dict[str, JsonValue]
    neighbours: Positive | None
    score: dict[str, JsonValue] | str | None
    rounding: str
    interval: str
    seed: int | None


def schema() -> str:
    """JSON schema of a result, for all who read one; `docs/result.schema.json` holds it (`make schema`)."""
    return json.dumps(WrittenResult.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
