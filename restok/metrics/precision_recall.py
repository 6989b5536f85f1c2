"""Precision and recall of a set of samples against a set of references (Kynkaanniemi et al., arXiv 1904.06991)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 2**24       # distances held at once: 128 MiB
SAME = 1e-12        # squared, relative: points nearer than a millionth of their length differ by the rounding of float32


def precision_recall(samples: Float[Tensor, "n d"], references: Float[Tensor, "m d"], neighbours: int) -> tuple[float, float]:
    """The share of samples inside a reference's ball, and the share of references inside a sample's ball.

    The ball of a point reaches to its k-th nearest neighbour in its own set, itself not counted. Raises ValueError on NaN,
    on different dimensions and where a set has no k neighbours.
    """
    for name, points in (("samples", samples), ("references", references)):
        if len(points) <= neighbours or neighbours < 1:
            raise ValueError(f"{len(points)} {name} have no {neighbours} neighbours each: take more, or fewer neighbours")
        if not points.isfinite().all():
            raise ValueError(f"the features of the {name} hold NaN or infinity")
    if samples.shape[1] != references.shape[1]:
        raise ValueError(f"{samples.shape[1]} and {references.shape[1]} dimensions: take one feature network for both")
    centre = references.to(torch.float64).mean(0)          # distances stay, and lose fewer digits to a common offset
    samples, references = samples.to(centre) - centre, references.to(centre) - centre
    sample_radii, reference_radii = _radii(samples, neighbours), _radii(references, neighbours)
    inside, reached = [], torch.zeros(len(references), dtype=torch.bool, device=centre.device)
    for rows, squares in _distances(samples, references):
        inside.append((squares <= reference_radii).any(1))
        reached |= (squares <= sample_radii[rows, None]).any(0)
    return torch.cat(inside).double().mean().item(), reached.double().mean().item()


def _radii(points: Float[Tensor, "n d"], neighbours: int) -> Float[Tensor, " n"]:
    """Squared. The nearest of `neighbours` + 1 is the point itself."""
    return torch.cat([squares.topk(neighbours + 1, largest=False).values[:, -1] for _, squares in _distances(points, points)])


def _distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Float[Tensor, "r m"]]]:
    """Squared distances, some rows at a time; zero where the points are the same."""
    lengths_a, lengths_b = a.square().sum(1), b.square().sum(1)
    step = max(1, CHUNK // len(b))
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        lengths = lengths_a[rows, None] + lengths_b                                        # r m
        squares = lengths - 2 * a[rows] @ b.T                                              # r m
        yield rows, squares.masked_fill_(squares <= SAME * lengths, 0)
