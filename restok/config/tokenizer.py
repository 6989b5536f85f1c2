"""The tokenizer's architecture (Fig. 2)."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from restok.config.base import Bounded, Config, Fraction, Many, Size, Sizes, Weight, Whole
from restok.hierarchy import group_sizes, latent_grids, merge_kernels, merge_layers, scale_grids


class CNN(Config):
    channels: Size
    multipliers: Sizes                     # one level each; every level but the last halves the resolution
    blocks: Size                           # residual blocks a level
    latent_channels: Size
    groups: Size                           # of GroupNorm

    @model_validator(mode="after")
    def check(self) -> Self:
        for multiplier in self.multipliers:
            if self.channels * multiplier % self.groups:
                raise ValueError(f"groups: {self.groups} does not divide {self.channels * multiplier} channels")
        return self


class Tokenizer(Config):
    image_size: Size
    cnn: CNN
    width: Size
    encoder_layers: Size
    decoder_layers: Size
    heads: Size
    rope_base: Many
    latents: Size
    # Algorithm 1; without its residual; means of neighbours in reading order (the release's `latent_hierarchy: false`); one
    # parameter a token.
    latent_init: Literal["residual", "pooled", "sequence", "learnable"]
    latent_hierarchy: bool                 # levels of 1, 1, 2, 4, ...; or one flat level
    scales: Size                           # S: S - 1 residual merging blocks
    merge_factor: Annotated[Literal[1, 2, 4], Whole]   # tokens merged into one (Table 3)
    merge: Literal["average", "nearest"]   # average: section 3.2 and Fig. 2; nearest: the release keeps every second token
    merge_grid: Literal["width", "2d"]   # factor 2: the release halves the width only; '2d' alternates as Fig. 2b does
    merge_residual: bool                   # Algorithm 2's subtraction
    latent_layout: Literal["tokens", "legacy"]   # legacy: the release re-reads (tokens, width) as (width, tokens)
    codebook_size: Size
    codebook_dim: Size
    commitment: Weight
    codebook_init: Literal["random", "data"]     # data: the first training batch's latents; random: as the release
    revive_after: Bounded                  # steps unused before an entry is moved onto a latent; 0: never (the release)
    keep_minimum: Size                     # Table 9: the fewest latents nested dropout keeps
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
        if self.latent_init in ("residual", "pooled"):
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
