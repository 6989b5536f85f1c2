"""The discriminator: small trained heads on the features of a frozen network (the paper: DINO-S/16)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from restok.config import Discriminator
from restok.errors import InputError
from restok.networks.backbone import load_backbone


class FeatureDiscriminator(nn.Module):
    """One head a layer of `config.layers`, on patch tokens of a vision transformer or on positions of the classifier's maps.

    Only the heads take gradients and change in training; gradients reach the images through the frozen network. Raises
    ValueError for layers that the network does not have, and what `load_backbone` raises.
    """

    def __init__(self, config: Discriminator, classifier: str | Path | None):
        super().__init__()
        self.backbone = load_backbone(config, classifier)
        widths, self.layers = self.backbone.widths, config.layers
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[-1] >= len(widths):
            raise InputError(f"layers: {list(self.layers)}; {config.network} has layers 0 to {len(widths) - 1}, "
                             "of which one or more, increasing, are judged")
        self.heads = Heads(Head(widths[layer]) for layer in self.layers)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b s"]:
        """One logit a position and layer in float32, high for real, layer after layer; images in [0, 1] of any size."""
        return self.heads(self.features(images))[0]

    def features(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _"]]:
        """What the heads judge, of each layer."""
        return self.backbone.tokens(images, self.layers)


class Heads(nn.ModuleList):
    """All that is trained here."""

    def forward(self, *sets: Sequence[Float[Tensor, "b _ _"]]) -> list[Float[Tensor, "b _"]]:
        """The logits of sets of images, one after the other, from their features."""
        return [torch.cat([head(tokens).float() for head, tokens in zip(self, features, strict=True)], dim=1)
                for features in sets]


class Head(nn.Module):
    """StyleGAN-T's head (Sauer et al. 2023): convolutions of 1 and 9 tokens in raster order, the second one residual.

    GroupNorm, in one group, stands for its normalisation over virtual batches: no logit depends on another image.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = block(width, kernel=1)
        self.second = block(width, kernel=9)
        self.logit = spectral_norm(nn.Conv1d(width, 1, 1))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
        x = self.first(tokens.mT)                              # b d n
        x = (x + self.second(x)) / 2**0.5                      # b d n, of unchanged variance
        return self.logit(x).squeeze(1)                        # b n


def block(width: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, padding_mode="circular")
    return nn.Sequential(spectral_norm(convolution), nn.GroupNorm(1, width), nn.LeakyReLU(0.2))
