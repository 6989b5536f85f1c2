"""What the other stages write as JSON: a strict model a kind of file.

A model has what readers ask for; what else a file holds may stand beside it, as do keys that a later version adds.
"""

from typing import Annotated, Literal

from pydantic import Field

from restok.config.base import Count, Fraction, Positive
from restok.files.loading import Known


class Examined(Known):
    """doctor.json: hours of each result, by its path, where they are known."""

    device: str
    settings: str                   # their digest: of others, hours are not known
    estimate: Literal["GPU", "CPU", "counted"]     # what the hours are scaled from: a measured run, or operations, not measured
    results: dict[str, Annotated[float, Field(ge=0)] | None]


class Trained(Known):
    """metrics.json of a tokenizer. Of finished weights nobody knows the step."""

    parameters: Annotated[int, Field(gt=0)]
    step: Positive | None = None


class TrainedGenerator(Known):
    """metrics.json of a generator."""

    parameters: Annotated[int, Field(gt=0)]
    sampling_steps: Positive


class MadeFrom(Known):
    """metrics.json of a generator: the sha256 of the tokenizer whose codes it draws."""

    tokenizer: str


class TrainedClassifier(Known):
    """metrics.json of a classifier."""

    validation_accuracy: Fraction
    n: Positive


class _Split(Known):
    classes: Annotated[list[str], Field(min_length=1)]


class _Splits(Known):
    train: _Split


class Prepared(Known):
    """manifest.json of prepared images."""

    splits: _Splits


class Codes(Known):
    """manifest.json of a code store."""

    kind: Literal["codes"] = "codes"
    images: Positive
    crops: Positive
    tokens: Positive
    codebook_size: Annotated[int, Field(gt=0, le=2**16)]
    classes: Positive
    tokenizer: str
    dataset: str = ""
    sha256: str = ""


class _Part(Known):
    part: Count
    parts: Positive


class CodesPart(Known):
    """manifest.json of a part of a code store."""

    kind: Literal["codes_part"]
    settings: _Part
    inputs: dict[str, str]
    rows: Annotated[list[Count], Field(min_length=2, max_length=2)]
    crops: Positive
    tokens: Positive
    codebook_size: Positive
    files: dict[str, str]
