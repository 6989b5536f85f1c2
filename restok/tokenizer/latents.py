"""Where the latent tokens start from (Algorithm 1, Fig. 2b)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from restok.hierarchy import Grid


def residual_pooling(p: Float[Tensor, "b d h w"], grids: Sequence[Grid]) -> Float[Tensor, "b n d"]:
    """Algorithm 1. Each level pools what the coarser levels left unexplained, so level 2 is zero: a residual of the mean."""
    levels = []
    for grid in grids:
        z = F.adaptive_avg_pool2d(p, grid)                      # b d gh gw
        p = p - F.interpolate(z, size=p.shape[-2:])             # b d h w, nearest
        levels.append(z.flatten(2))                             # b d gh*gw
    return torch.cat(levels, dim=-1).transpose(1, 2)            # b n d


def pooling(p: Float[Tensor, "b d h w"], grids: Sequence[Grid]) -> Float[Tensor, "b n d"]:
    """Algorithm 1 without its subtraction: each level pools the tokens themselves (Table 2's latents without residual)."""
    return torch.cat([F.adaptive_avg_pool2d(p, grid).flatten(2) for grid in grids], dim=-1).transpose(1, 2)


def sequence_pooling(p: Float[Tensor, "b d h w"], latents: int) -> Float[Tensor, "b n d"]:
    """As many means of neighbours in reading order, whatever their levels: what the release starts from instead, where its
    `latent_hierarchy` is off."""
    return F.adaptive_avg_pool1d(p.flatten(2), latents).transpose(1, 2)
