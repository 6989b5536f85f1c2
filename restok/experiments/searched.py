"""What the search for guidance writes as JSON, as in results.py."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from restok.config import Guidance
from restok.config.base import Count, Fraction, Weight
from restok.config.generator import Schedule
from restok.experiments.results import Measured, Result
from restok.files.loading import Known


class _Sampling(Known):
    top_k: Count
    top_p: Fraction


class _Setting(Known):
    schedule: Schedule
    scale: Weight
    start: Fraction


class Scored(Result, _Setting):
    """What `restok score-guidance` and `restok score-finalist` write."""

    sampling: _Sampling
    seed: int


class Choice(Known):
    """What a search for guidance chose."""

    chosen: Guidance


class _Candidate(Measured, _Setting):
    pass


class Search(Choice):
    """What `restok search-guidance` writes."""

    metric: str
    candidates: Annotated[list[_Candidate], Field(min_length=1)]
    finalists: list[_Candidate] = Field(default_factory=list)      # measured again on more samples; none: one round
    top_k: Count = 0
    top_p: Fraction = 0

    @model_validator(mode="after")
    def check(self) -> Self:
        for name, rows in (("candidates", self.candidates), ("finalists", self.finalists)):
            for i, row in enumerate(rows):
                if self.metric not in row.metrics.model_dump(exclude_unset=True):
                    raise ValueError(f"{name}.{i}.metrics: has no {self.metric!r}, the metric of the search")
                if row.n != rows[0].n:
                    raise ValueError(f"{name}.{i}.n: {row.n}, but that of the first is {rows[0].n}")
        return self
