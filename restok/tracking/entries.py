"""What a store shows of a result: entries, which a mirror writes and a store keeps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

GOING_ON = "@going on"                                 # ends the key of what is known by its place alone


class Point(NamedTuple):
    """A value of a metric."""

    name: str
    value: float
    time: int                        # milliseconds since 1970
    step: int


class Model(NamedTuple):
    """A folder of weights."""

    name: str
    kind: str                        # tokenizer or generator
    folder: Path
    digest: str


class Dataset(NamedTuple):
    """What a result was made of that is no model: the images, the codes."""

    name: str
    digest: str
    place: str


@dataclass(frozen=True)
class Tracked:
    """What the store shows of one result: the run of it is known again by its key."""

    key: str
    path: str                        # of the result
    name: str
    started: int                     # milliseconds since 1970
    ended: int | None = None         # None: not finished
    stopped: bool = False            # not finished, and nobody is at work on it
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    points: Iterable[Point] = ()
    files: Mapping[str, Path] = field(default_factory=dict)          # by their place among the run's artifacts
    pictures: Mapping[str, bytes] = field(default_factory=dict)         # which are no files
    model: Model | None = None
    made_from: tuple[str, ...] = ()                                  # digests of the models behind it
    datasets: tuple[Dataset, ...] = ()
