"""MaskGIT's convolutional encoder and decoder, by configuration.

A residual block whose channel count changes returns h + shortcut(h), h its own output: MaskGIT's choice, kept by the release.
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok.config import CNN


class ResidualBlock(nn.Module):
    def __init__(self, inside: int, outside: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inside, eps=1e-6)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, outside, eps=1e-6)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(outside, outside, 1, bias=False) if inside != outside else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(h))


def _level(inside: int, outside: int, config: CNN) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(inside if i == 0 else outside, outside, config.groups) for i in range(config.blocks)))


class CNNEncoder(nn.Module):
    """Image b 3 h w, normalised -> b latent_channels h/f w/f, f = 2^(levels - 1)."""

    def __init__(self, config: CNN):
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(_level(a, b, config) for a, b in pairwise([config.channels, *widths]))
        self.middle = _level(widths[-1], widths[-1], config)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        x = self.conv_in(x)
        for i, level in enumerate(self.levels):
            x = level(x if i == 0 else F.avg_pool2d(x, 2))
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class CNNDecoder(nn.Module):
    """b latent_channels gh gw -> image b 3 h w, unclamped."""

    def __init__(self, config: CNN):
        super().__init__()
        widths = [config.channels * m for m in reversed(config.multipliers)]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.middle = _level(widths[0], widths[0], config)
        self.levels = nn.ModuleList(_level(a, b, config) for a, b in pairwise([widths[0], *widths]))
        self.upsamplers = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths[:-1])
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c gh gw"]) -> Float[Tensor, "b 3 h w"]:
        x = self.middle(self.conv_in(x))
        for i, level in enumerate(self.levels):
            x = level(x if i == 0 else self.upsamplers[i - 1](F.interpolate(x, scale_factor=2.0)))
        return self.conv_out(F.silu(self.norm_out(x)))
