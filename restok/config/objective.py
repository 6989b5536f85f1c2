"""What the tokenizer minimises (Eq. 1-4)."""

from typing import Annotated, Literal

from pydantic import Field

from restok.config.base import Bounded, Config, Fraction, Weight
from restok.config.training import Optimizer


class Discriminator(Config):
    network: str                           # 'digits', or a timm name
    weights: str | None                    # a file to load instead of what `restok fetch` brings
    layers: Annotated[tuple[Bounded, ...], Field(min_length=1)]   # judged
    start: Bounded                         # first step of the adversary, of both updates
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
