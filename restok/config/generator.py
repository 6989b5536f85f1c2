"""The generator's architecture, and how images are drawn from it (Tables 6 and 8)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from restok.config.base import Bounded, Config, Fraction, Many, Scale, Size
from restok.hierarchy import group_sizes

Schedule = Literal["constant", "linear", "step", "cosine"]


class Generator(Config):
    codebook_size: Size
    tokens: Size
    classes: Size
    width: Size
    layers: Size
    heads: Size
    hidden: Size                           # of SwiGLU
    rope_base: Many
    ntp: Size | Literal["all"]             # next-token predictions before levels are drawn whole; 'all': vanilla autoregression
    token_dropout: Fraction
    residual_dropout: Fraction
    ffn_dropout: Fraction
    class_dropout: Fraction

    @property
    def groups(self) -> tuple[int, ...]:
        """Tokens drawn at each step."""
        return group_sizes(self.tokens, self.tokens if self.ntp == "all" else self.ntp)

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError(f"heads: {self.width} / {self.heads} must be even, for rotary positions")
        try:
            _ = self.groups
        except ValueError as error:
            raise ValueError(f"ntp: {error}") from None
        return self


class Guidance(Config):
    """Classifier-free guidance over the steps of one image (Table 6)."""

    schedule: Schedule
    scale: Scale                           # the largest; 1 is no guidance
    start: Fraction = 0.0                  # of the trajectory; 'step' only
    over: Literal["steps", "tokens"] = "steps"   # what its ratio counts: the paper leaves it open, the release counts steps

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.start and self.schedule != "step":
            raise ValueError(f"start: only the 'step' schedule has a start ratio, not {self.schedule!r}")
        return self


UNGUIDED = Guidance(schedule="constant", scale=1.0)


class Sampling(Config):
    temperature: Annotated[float, Field(ge=1e-6, le=1e6)]
    top_k: Bounded                         # 0: off
    top_p: Fraction                        # 0 and 1: off
    guidance: Guidance | None              # null: the search's choice
    class_cache: Literal["kept", "overwritten"]   # overwritten: the release's fault with ntp 1, emulated to measure it
    rounding: Literal["round", "truncate"]        # of samples to 8 bits; truncate: the release's, half a grey level darker
    precision: Literal["fp32", "bf16"]     # of the models that draw; bf16, meant for GPUs, draws other images
    batch_size: Many


class Coarse(Config):
    """The first round of a search: every candidate on fewer samples; the second measures the best of them again."""

    samples_per_class: Many
    finalists: Many                        # how many are measured again: all of them where there are fewer


class GuidanceSearch(Config):
    samples_per_class: Many
    coarse: Coarse | None                  # null: every candidate on as many samples, in one round
    schedules: tuple[Schedule, ...]
    starts: tuple[Fraction, ...]           # tried with 'step'
    scales: tuple[Scale, ...]

    @property
    def candidate_samples(self) -> int:
        """Of each class, of every candidate."""
        return self.coarse.samples_per_class if self.coarse else self.samples_per_class

    @property
    def finalists(self) -> int:
        """How many candidates are measured again; 0 where there is one round."""
        return min(self.coarse.finalists, len(self.candidates())) if self.coarse else 0

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.coarse and self.coarse.samples_per_class >= self.samples_per_class:
            raise ValueError(f"coarse.samples_per_class: {self.coarse.samples_per_class} is not below samples_per_class, "
                             f"{self.samples_per_class}; take fewer, or null for one round")
        return self

    def candidates(self) -> tuple[Guidance, ...]:
        """Every setting to try, no guidance first."""
        candidates = [UNGUIDED]
        for schedule in self.schedules:
            for start in self.starts if schedule == "step" else (0.0,):
                candidates += [Guidance(schedule=schedule, scale=s, start=start) for s in self.scales if s != 1]
        return tuple(dict.fromkeys(candidates))
