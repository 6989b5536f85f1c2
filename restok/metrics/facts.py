"""What the header of a statistics file says: of which images its sums are, and how they were measured."""

from typing import Annotated

from pydantic import Field, JsonValue

from restok.config.base import Count, Positive
from restok.errors import RestokError
from restok.files.loading import Known


class StatisticsError(RestokError):
    """Statistics that are damaged, incomplete, or of other images or another network; the message names the remedy."""


class _Features(Known):
    kind: str
    name: str
    sha256: str
    dims: Positive
    resize: str


class _Images(Known):
    name: str
    digest: str
    n: Count
    size: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None
    rounding: str
    originals: dict[str, JsonValue] | None
    in_order: bool
    inputs: dict[str, str] = Field(default_factory=dict)     # of images that models make: the sha256 of each
    settings: dict[str, JsonValue] = Field(default_factory=dict)      # how they were drawn
    published: str = ""                  # the digest of statistics that were published with images
    caution: str = ""                    # of published statistics, whose maker may have resized otherwise


class _Also(Known):
    features: _Features
    shift: float


class Facts(Known):
    """What was measured, and how, as `Statistics.begin` says it."""

    features: _Features
    batch_size: Positive
    images: _Images
    shift: float
    spatial: Count                       # d of the features that keep their place; 0 for none, as of logits
    logits: Count
    classes: Count
    knows_labels: bool
    likeness: dict[str, str | None]
    levels: list[Positive]
    codebook_size: Count
    also: list[_Also] = Field(default_factory=list)      # further networks


class About(Known):
    """What the header of a statistics file holds."""

    facts: Facts
    made: list[dict[str, JsonValue]]
    paths: dict[str, str]
