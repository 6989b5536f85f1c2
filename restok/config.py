"""Frozen, strict models that mirror `params/*.yaml`: every field is written out there, none has a default here.

`restok.params` reads the files.
"""

from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from restok.hierarchy import group_sizes, latent_grids, merge_kernels, merge_layers, scale_grids

Positive = Annotated[int, Field(gt=0)]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Label = Annotated[str, Field(pattern=r"^\w+$")]


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Config):
    source: Literal["digits", "imagefolder"]
    path: str | None                       # of an image folder: PATH/{train,validation}/CLASS/*; None for the embedded digits
    train: str
    validation: str
    crop_scale: tuple[Fraction, Fraction]  # side of the random training crop over the shorter side of the image
    flip: bool
    workers: Annotated[int, Field(ge=0)]

    @property
    def name(self) -> str:
        """What reports call these images: 'digits', or the folder's own name."""
        return "digits" if self.path is None else PurePath(self.path).name

    @model_validator(mode="after")
    def check(self) -> Self:
        if (self.path is None) != (self.source == "digits"):
            raise ValueError("path: a folder for 'imagefolder', null for 'digits'")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError("crop_scale: two increasing fractions above 0, such as [0.8, 1.0]")
        return self


class CNN(Config):
    channels: Positive
    multipliers: Positives                 # one level each; every level but the last halves the resolution
    blocks: Positive                       # residual blocks a level
    latent_channels: Positive
    groups: Positive                       # of GroupNorm

    @model_validator(mode="after")
    def check(self) -> Self:
        for multiplier in self.multipliers:
            if self.channels * multiplier % self.groups:
                raise ValueError(f"groups: {self.groups} does not divide {self.channels * multiplier} channels")
        return self


class Tokenizer(Config):
    image_size: Positive
    cnn: CNN
    width: Positive
    encoder_layers: Positive
    decoder_layers: Positive
    heads: Positive
    rope_base: Positive
    latents: Positive
    latent_init: Literal["residual", "pooled", "learnable"]   # Algorithm 1; without its residual; one parameter a token
    latent_hierarchy: bool                 # levels of 1, 1, 2, 4, ...; or one flat level
    scales: Positive                       # S: S - 1 residual merging blocks
    merge_factor: Literal[1, 2, 4]         # tokens merged into one (Table 3)
    merge: Literal["average", "nearest"]   # average: section 3.2 and Fig. 2; nearest: the release keeps every second token
    merge_grid: Literal["width", "2d"]   # factor 2: the release halves the width only; '2d' alternates as Fig. 2b does
    merge_residual: bool                   # Algorithm 2's subtraction
    latent_layout: Literal["tokens", "legacy"]   # legacy: the release re-reads (tokens, width) as (width, tokens)
    codebook_size: Positive
    codebook_dim: Positive
    commitment: Weight
    codebook_init: Literal["random", "data"]     # data: the first training batch's latents; random: as the release
    revive_after: Annotated[int, Field(ge=0)]    # steps unused before an entry is moved onto a latent; 0: never (the release)
    keep_minimum: Positive                 # Table 9: the fewest latents nested dropout keeps
    drop_probability: Fraction

    @property
    def grid(self) -> int:
        """Side of the CNN's output."""
        return self.image_size // 2 ** (len(self.cnn.multipliers) - 1)

    @property
    def merge_kernels(self) -> tuple[tuple[int, int], ...]:
        return merge_kernels(self.scales, self.merge_factor, self.merge_grid)

    @property
    def levels(self) -> tuple[int, ...]:
        """Latents a level."""
        return group_sizes(self.latents) if self.latent_hierarchy else (self.latents,)

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.latents & (self.latents - 1):
            raise ValueError(f"latents: {self.latents} is not a power of two, so levels of 1, 1, 2, 4, ... cannot fill it")
        if self.image_size % 2 ** (len(self.cnn.multipliers) - 1):
            raise ValueError(f"image_size: {self.image_size} is not halved {len(self.cnn.multipliers) - 1} times by the CNN")
        if self.scales > self.encoder_layers:
            raise ValueError(f"scales: {self.scales} scales need at least as many encoder layers, not {self.encoder_layers}")
        if len(set(merge_layers(self.encoder_layers, self.scales))) != self.scales - 1:
            raise ValueError(f"scales: {self.scales} scales do not fit {self.encoder_layers} encoder layers")
        try:
            scale_grids(self.grid, self.merge_kernels)
        except ValueError as error:
            raise ValueError(f"scales: {error}; take fewer scales or a larger image") from None
        if self.latent_init != "learnable":
            height, width = latent_grids(self.latents)[-1]
            if self.grid % height or self.grid % width:
                raise ValueError(f"latents: the last level's {height}x{width} does not divide the {self.grid}x{self.grid} grid")
        if self.width % self.heads or self.width // self.heads % 4:
            raise ValueError(f"heads: {self.width} / {self.heads} must be a multiple of 4, for rotary rows and columns")
        try:
            group_sizes(self.latents, self.keep_minimum)
        except ValueError as error:
            raise ValueError(f"keep_minimum: {error}") from None
        return self


class Optimizer(Config):
    learning_rate: Weight
    final_learning_rate: Weight
    warmup_steps: Annotated[int, Field(ge=0)]
    betas: tuple[Beta, Beta]
    weight_decay: Weight


class Training(Config):
    batch_size: Positive
    optimizer: Optimizer
    clip: Weight
    precision: Literal["fp32", "bf16", "fp16"]
    ema: Fraction
    log_every: Positive
    save_every: Positive                   # steps between resumable states: the most that a killed run can lose


class TokenizerTraining(Training):
    checkpoints: dict[Label, Positive]     # label: step, increasing
    schedule_steps: Positive | None        # where the learning rate ends; null: with the last checkpoint

    @model_validator(mode="after")
    def check(self) -> Self:
        steps = list(self.checkpoints.values())
        if not steps or steps != sorted(set(steps)):
            raise ValueError("checkpoints: one label or more, with increasing steps")
        if self.schedule_steps is not None and self.schedule_steps < steps[-1]:
            raise ValueError(f"schedule_steps: {self.schedule_steps} ends before the last checkpoint, at {steps[-1]}")
        return self

    @property
    def total(self) -> int:
        """Steps of the learning rate's schedule."""
        return self.schedule_steps or list(self.checkpoints.values())[-1]


class GeneratorTraining(Training):
    steps: Positive


class Discriminator(Config):
    network: str                           # 'digits', or a timm name
    weights: str | None                    # a file to load instead of timm's download
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]   # judged
    start: Annotated[int, Field(ge=0)]     # first step of the adversary, of both updates
    optimizer: Optimizer
    lecam: Weight
    augment: tuple[Literal["color", "translation", "cutout"], ...]   # DiffAugment


class Alignment(Config):
    network: str                           # 'digits', or a timm name
    weights: str | None
    encoder: Weight                        # lambda_enc
    decoder: Weight                        # lambda_dec
    margin: Fraction                       # the paper: 0.85; the release's configuration: 0.75
    projection: Literal["teacher", "tokenizer"]   # whose features phi maps: Eq. 1-2 the teacher's, the release the tokenizer's


class Perceptual(Config):
    network: Literal["lpips-vgg", "lpips-alex", "digits"]


class Objective(Config):
    mse: Weight
    perceptual: Weight
    gan: Weight
    vf: Weight
    alignment: Alignment
    perceptual_network: Perceptual
    discriminator: Discriminator


class Codes(Config):
    # The image's shorter side over the crop's.
    scales: Annotated[tuple[Annotated[float, Field(ge=1)], ...], Field(min_length=1)]
    five_crops: bool                       # corners and centre; else the centre
    flip: bool
    batch_size: Positive


class Generator(Config):
    codebook_size: Positive
    tokens: Positive
    classes: Positive
    width: Positive
    layers: Positive
    heads: Positive
    hidden: Positive                       # of SwiGLU
    rope_base: Positive
    ntp: Positive | Literal["all"]         # next-token predictions before levels are drawn whole; 'all': vanilla autoregression
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

    schedule: Literal["constant", "linear", "step", "cosine"]
    scale: Weight                          # the largest; 1 is no guidance
    start: Fraction = 0.0                  # of the trajectory; 'step' only
    over: Literal["steps", "tokens"] = "steps"   # what its ratio counts: the paper leaves it open, the release counts steps

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.start and self.schedule != "step":
            raise ValueError(f"start: only the 'step' schedule has a start ratio, not {self.schedule!r}")
        return self


class Sampling(Config):
    temperature: Annotated[float, Field(gt=0)]
    top_k: Annotated[int, Field(ge=0)]     # 0: off
    top_p: Fraction                        # 0 and 1: off
    guidance: Guidance | None              # null: the search's choice
    class_cache: Literal["kept", "overwritten"]   # overwritten: the release's fault with ntp 1, emulated to measure it
    rounding: Literal["round", "truncate"]        # of samples to 8 bits; truncate: the release's, half a grey level darker
    batch_size: Positive


class GuidanceSearch(Config):
    samples_per_class: Positive
    schedules: tuple[Literal["constant", "linear", "step", "cosine"], ...]
    starts: tuple[Fraction, ...]           # tried with 'step'
    scales: tuple[Weight, ...]

    def candidates(self) -> tuple[Guidance, ...]:
        """Every setting to try, no guidance first."""
        found = [Guidance(schedule="constant", scale=1.0)]
        for schedule in self.schedules:
            for start in self.starts if schedule == "step" else (0.0,):
                found += [Guidance(schedule=schedule, scale=s, start=start) for s in self.scales if s != 1]
        return tuple(dict.fromkeys(found))


class Evaluation(Config):
    features: Literal["digits", "inception"]
    weights: str | None                    # of the Inception network: a file instead of the download
    lpips: bool                            # whether reconstructions are measured by LPIPS-Alex
    lpips_weights: str | None              # of its AlexNet: a file instead of torchvision's download
    reference: str | None                  # of samples: images or statistics; null: the workflow's validation split
    samples_per_class: Positive
    neighbours: Positive                   # k of precision and recall
    distances: Annotated[tuple[Literal["exact", "adm-fp16"], ...], Field(min_length=1)]   # of precision and recall
    batch_size: Positive
    save_every: Positive                   # images between resumable states: about the most that a killed run can lose

    @model_validator(mode="after")
    def check(self) -> Self:
        if "exact" not in self.distances or len(set(self.distances)) != len(self.distances):
            raise ValueError("distances: 'exact', which the reports show, and each at most once")
        return self


class Classifier(Config):
    """The demo's feature network, trained on the training split."""

    channels: Positives
    steps: Positive
    batch_size: Positive
    learning_rate: Weight


class Experiments(Config):
    """What the rows of params/experiments.tsv share."""

    main_seeds: Positive                   # seeds of a row of base 'main': `seed` and the ones after it
    ablation_seeds: Positive
    ablation: dict[str, JsonValue]         # what rows of base 'ablation' change first: SECTION.KEY: VALUE


class Params(Config):
    seed: Annotated[int, Field(ge=0)]
    data: Data
    classifier: Classifier | None
    tokenizer: Tokenizer
    tokenizer_training: TokenizerTraining
    objective: Objective
    codes: Codes
    generator: Generator
    generator_training: GeneratorTraining
    sampling: Sampling
    guidance_search: GuidanceSearch
    evaluation: Evaluation
    experiments: Experiments

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.sampling.class_cache == "overwritten" and self.generator.ntp != 1:
            raise ValueError(f"sampling.class_cache: the fault belongs to generator.ntp 1, not {self.generator.ntp!r}")
        for ours, theirs in (("codebook_size", "codebook_size"), ("tokens", "latents")):
            a, b = getattr(self.generator, ours), getattr(self.tokenizer, theirs)
            if a != b:
                raise ValueError(f"generator.{ours}: {a} is not tokenizer.{theirs}, which is {b}")
        networks = (self.objective.alignment.network, self.objective.perceptual_network.network,
                    self.objective.discriminator.network, self.evaluation.features)
        if "digits" in networks and self.classifier is None:
            raise ValueError("classifier: null, but 'digits' features are asked for")
        judged, stages = self.objective.discriminator.layers, len(self.classifier.channels) if self.classifier else 0
        if self.objective.discriminator.network == "digits" and max(judged) >= stages:
            raise ValueError(f"objective.discriminator.layers: {list(judged)}, but classifier.channels has {stages} stages")
        return self
