"""The Monge Inception distance (Berthet et al., arXiv 2605.06797): a sliced Wasserstein distance, which sorts and fits no
Gaussian. So it takes fewer images than FID, and what has the right mean and covariance alone does not fool it."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from restok.errors import InputError
from restok.metrics.features import full_precision
from restok.metrics.intervals import GROUPS, Interval, group_of, jackknife

DIRECTIONS, SEED = 1000, 2020        # torch-fidelity's, as below; its releases up to 0.4 have no MIND
AT_ONCE = 64                         # directions, whose projections are in memory


def mind(samples: Float[Tensor, "n d"], references: Float[Tensor, "m d"], directions: int = DIRECTIONS,
         seed: int = SEED) -> tuple[float, Interval | None]:
    """3 d times the mean over random directions of the squared Wasserstein distance of the projections, and its interval.

    Both sets have one size: of the larger one as many are drawn as the smaller one has. Draws and directions are
    torch-fidelity's for the same seed. The interval is for the chance of the samples: the jackknife leaves out a group of them,
    and takes the references' quantiles in steps of what is left. Over few images the distance is too large, as FID is, by about
    1 / n. Raises ValueError on NaN and on sets of fewer than two images.
    """
    n, d = min(len(samples), len(references)), samples.shape[1]
    if n < 2:
        raise InputError(f"sets of {len(samples)} and {len(references)} images: take 2 at the least")
    if not (samples.isfinite().all() and references.isfinite().all()):
        raise InputError("the features hold NaN or infinity: look at the images and at the feature network's weights")
    draws = torch.Generator().manual_seed(seed)
    samples, references = (drawn(one, n, draws).to(samples.device).float() for one in (samples, references))
    ways = torch.randn(directions, d, generator=draws)
    ways = (ways / ways.norm(dim=1, keepdim=True)).to(samples.device)
    member = torch.from_numpy(group_of(n, GROUPS)).to(samples.device)
    sums = torch.zeros(GROUPS + 1, dtype=torch.float64, device=samples.device)       # without each group, and whole
    left = n - member.long().bincount(minlength=GROUPS)
    for some in ways.split(AT_ONCE):
        with full_precision(samples.device):
            projected = some @ samples.T, some @ references.T                        # a n
        ours, order = projected[0].sort(1)
        theirs = projected[1].sort(1).values
        sums[GROUPS] += (ours - theirs).double().square().sum()
        for group, size in enumerate(left.tolist()):
            kept = ours[member[order] != group].view(len(some), size)
            sums[group] += (kept - quantiles(theirs, size)).double().square().sum()
    values = (3 * d * sums / directions / torch.cat([left, left.new_tensor([n])]).clamp(min=1)).tolist()
    if left.min() < 2:
        return values[GROUPS], None
    return jackknife(lambda group: values[GROUPS if group is None else group], least=0)


def drawn(points: Float[Tensor, "n d"], count: int, draws: torch.Generator) -> Float[Tensor, "count d"]:
    """All of them, or as many drawn without replacement."""
    return points if len(points) == count else points[torch.randperm(len(points), generator=draws)[:count].to(points.device)]


def quantiles(ordered: Float[Tensor, "a n"], count: int) -> Float[Tensor, "a count"]:
    """`count` values that stand for n in order, evenly spaced among them."""
    n = ordered.shape[1]
    at = (np.arange(count) + 0.5) * n / count - 0.5
    below = np.clip(np.floor(at).astype(int), 0, n - 2)
    share = torch.from_numpy(np.clip(at - below, 0, 1)).to(ordered)
    below = torch.from_numpy(below).to(ordered.device)
    return torch.lerp(ordered[:, below], ordered[:, below + 1], share)
