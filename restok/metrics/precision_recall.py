"""Precision and recall of a set of samples against a set of references (Kynkaanniemi et al., arXiv 1904.06991)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from restok.errors import InputError
from restok.metrics.features import full_precision
from restok.progress import track

SIDE = 1024             # rows and columns of a block of distances
MANY = 8                # blocks of rows whose progress is shown: fewer take seconds
ADM_SIDE = 10_000       # of a block of ADM's, which is float16 or float32 as a whole
UNIT = 2.0**-24         # the largest relative error of rounding to float32
TINY = 1e-30            # added to squared lengths whose products may underflow
Rows = slice | Int[Tensor, " r"]


def precision_recall(samples: Float[Tensor, "n d"], references: Float[Tensor, "m d"], neighbours: int,
                     distances: Literal["exact", "adm-fp16"] = "exact") -> tuple[float, float]:
    """The share of samples inside a reference's ball, and the share of references inside a sample's ball.

    The ball of a point reaches to its k-th nearest neighbour in its own set, itself not counted, and contains its surface.
    "exact" decides as the definition in float64 does; "adm-fp16" as ADM's evaluator, which rounds to float16. Runs where the
    features are; "exact" takes a float32 copy of them and 256 MiB beside them, "adm-fp16" 1 GiB, whatever n and m.
    Raises ValueError on NaN, on different dimensions, on other distances and where a set has no k neighbours.
    """
    for name, points in (("samples", samples), ("references", references)):
        if len(points) <= neighbours or neighbours < 1:
            raise InputError(f"{len(points)} {name} have no {neighbours} neighbours each: take more, or fewer neighbours")
        if not all(points[rows].isfinite().all() for rows in _blocks(len(points), SIDE)):
            raise InputError(f"the features of the {name} hold NaN or infinity")
    if samples.shape[1] != references.shape[1]:
        raise InputError(f"{samples.shape[1]} and {references.shape[1]} dimensions: take one feature network for both")
    with full_precision(samples.device):
        match distances:
            case "exact":
                inside, reached = _inside(samples, references, neighbours)
            case "adm-fp16":
                inside, reached = _inside_adm(samples, references, neighbours)
            case _:
                raise InputError(f"distances {distances!r}: take 'exact' or 'adm-fp16'")
    return inside.double().mean().item(), reached.double().mean().item()


# Exact: float32 bounds the distances, and what the bounds leave open is decided in float64.

@dataclass(frozen=True)
class _Points:
    """Points, and their float32 copies about a common centre, which bound the distances from below and above."""

    given: Float[Tensor, "n d"]
    copies: Float[Tensor, "n d"]
    lengths: Float[Tensor, " n"]        # squared, less the slack
    slack: Float[Tensor, " n"]          # a squared distance is off by less than the slack of its two ends

    @classmethod
    def about(cls, centre: Float[Tensor, " d"], scale: Float[Tensor, ""], given: Float[Tensor, "n d"]) -> "_Points":
        n, d = given.shape
        copies, squares = torch.empty(n, d, device=given.device), centre.new_empty(n)
        for rows in _blocks(n, SIDE):
            copies[rows] = (given[rows].double() - centre) / scale
            squares[rows] = copies[rows].double().square().sum(1)
        slack = (d + 16) * UNIT / (1 - d * UNIT) * (squares + TINY)      # d roundings (Higham 2002, 3.1), 16 more
        return cls(given, copies, (squares - slack).float(), slack.float())


class _Radii(NamedTuple):
    """Bounds of squared radii, in units of the copies."""

    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]


def _inside(samples: Float[Tensor, "n d"], references: Float[Tensor, "m d"],
            neighbours: int) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " m"]]:
    """Which samples are inside a reference's ball, and which references inside a sample's."""
    centre = references.mean(0).double()
    scale = torch.stack([torch.linalg.vector_norm(points, torch.inf).double() for points in (samples, references)]).max()
    a, b = (_Points.about(centre, scale.clamp(min=1e-300), points) for points in (samples, references))
    radii_a, radii_b = _radii(a, neighbours), _radii(b, neighbours)
    inside_a, maybe_a, inside_b, maybe_b = (torch.zeros(n, dtype=torch.bool, device=centre.device)
                                            for n in (len(samples), len(samples), len(references), len(references)))
    for rows in _tracked(len(samples), "precision and recall"):
        for columns in _blocks(len(references), SIDE):
            low, high = _bounds(a, rows, b, columns)                                       # r c each
            maybe_a[rows] |= (low <= radii_b.high[columns]).any(1)
            maybe_b[columns] |= (low <= radii_a.high[rows, None]).any(0)
            inside_a[rows] |= (high <= radii_b.low[columns]).any(1)
            inside_b[columns] |= (high <= radii_a.low[rows, None]).any(0)
    _settle(inside_a, maybe_a, a, b, radii_b, neighbours)
    _settle(inside_b, maybe_b, b, a, radii_a, neighbours)
    return inside_a, inside_b


def _radii(points: _Points, neighbours: int) -> _Radii:
    """The nearest of `neighbours` + 1 is the point itself. Distances are symmetric: half of the blocks serve both ends."""
    n, k = len(points.given), neighbours + 1
    nearest = [points.slack.new_full((n, k), torch.inf) for _ in range(2)]                 # by their lower and upper bounds
    for rows in _tracked(n, "nearest neighbours"):
        for columns in _blocks(n, SIDE, rows.start):
            for best, block in zip(nearest, _bounds(points, rows, points, columns), strict=True):
                best[rows] = _smallest(k, best[rows], block)
                if columns != rows:
                    best[columns] = _smallest(k, best[columns], block.T.contiguous())
    return _Radii(*(best.amax(1) for best in nearest))


def _smallest(k: int, best: Float[Tensor, "r k"], block: Float[Tensor, "r c"]) -> Float[Tensor, "r k"]:
    """Of each row of both. On its own first: a copy of the block would cost more than its search."""
    own = block.topk(min(k, block.shape[1]), largest=False).values
    return torch.cat([best, own], 1).topk(k, largest=False).values


def _settle(inside: Bool[Tensor, " n"], maybe: Bool[Tensor, " n"], points: _Points, others: _Points, radii: _Radii,
            neighbours: int) -> None:
    """Adds to `inside` which of the points that are not, but may be, are inside the exact ball of one of the others."""
    for rows in (maybe & ~inside).nonzero()[:, 0].split(SIDE):
        for columns in _blocks(len(others.given), SIDE):
            pairs = (_lower(points, rows, others, columns) <= radii.high[columns]).nonzero()
            i, j = rows[pairs[:, 0]], pairs[:, 1] + columns.start
            squares = _squares(points.given, i, others.given, j)
            inside[i[squares == 0]] = True                  # whatever the radius
            i, j, squares = (part[~inside[i]] for part in (i, j, squares))
            balls, which = j.unique(return_inverse=True)
            inside[i[squares <= _exact_radii(others, balls, radii, neighbours)[which]]] = True


def _exact_radii(points: _Points, indices: Int[Tensor, " r"], radii: _Radii, neighbours: int) -> Float[Tensor, " r"]:
    """Squared, of the points with these indices."""
    nearest = torch.full((len(indices), neighbours + 1), torch.inf, dtype=torch.float64, device=indices.device)
    for part in _blocks(len(indices), SIDE):
        rows = indices[part]
        for columns in _blocks(len(points.given), SIDE):
            low = _lower(points, rows, points, columns)
            i, j = (low <= radii.high[rows, None]).nonzero(as_tuple=True)
            squares = torch.full_like(low, torch.inf, dtype=torch.float64)
            squares[i, j] = _squares(points.given, rows[i], points.given, j + columns.start)
            nearest[part] = _smallest(neighbours + 1, nearest[part], squares)
    return nearest.amax(1)


def _bounds(a: _Points, rows: Rows, b: _Points, columns: Rows) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
    """Of squared distances, from below and above, in units of the copies."""
    low = _lower(a, rows, b, columns)
    return low, low + 2 * b.slack[columns] + 2 * a.slack[rows, None]


def _lower(a: _Points, rows: Rows, b: _Points, columns: Rows) -> Float[Tensor, "r c"]:
    return torch.addmm(b.lengths[columns], a.copies[rows], b.copies[columns].T, alpha=-2).add_(a.lengths[rows, None])


def _squares(a: Float[Tensor, "n d"], i: Int[Tensor, " p"], b: Float[Tensor, "m d"],
             j: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Squared distances of pairs: the definition. Sums in one order, so that equal pairs tie in any batch on any device."""
    step, sums = max(1, 2 * SIDE**2 // a.shape[1]), []
    for rows, columns in zip(i.split(step), j.split(step), strict=True):
        terms = (a[rows].double() - b[columns].double()).square_()                         # p d
        while terms.shape[1] > 1:
            terms = F.pad(terms, (0, terms.shape[1] % 2))
            terms = terms[:, ::2] + terms[:, 1::2]
        sums.append(terms[:, 0])
    return torch.cat(sums)


def _blocks(n: int, side: int, start: int = 0) -> Iterator[slice]:
    return (slice(first, min(first + side, n)) for first in range(start, n, side))


def _tracked(n: int, what: str) -> Iterable[slice]:
    blocks = list(_blocks(n, SIDE))
    return track(blocks, what, n, "points", size=lambda rows: rows.stop - rows.start) if len(blocks) > MANY else blocks


# ADM: https://github.com/openai/guided-diffusion/blob/main/evaluations/evaluator.py

def _inside_adm(samples: Float[Tensor, "n d"], references: Float[Tensor, "m d"],
                neighbours: int) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " m"]]:
    """As `_inside`, on ADM's distances."""
    samples, references = samples.float(), references.float()
    sample_radii, reference_radii = _adm_radii(samples, neighbours), _adm_radii(references, neighbours)
    inside = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
    reached = torch.zeros(len(references), dtype=torch.bool, device=samples.device)
    for rows in _blocks(len(references), ADM_SIDE):
        for columns in _blocks(len(samples), ADM_SIDE):
            block = _adm_distances(references[rows], samples[columns])                     # r c
            for part, squares in zip(reference_radii[rows].split(SIDE), block.split(SIDE), strict=True):
                inside[columns] |= (squares <= part[:, None]).any(0)
            reached[rows] |= torch.cat([(squares <= sample_radii[columns]).any(1) for squares in block.split(SIDE)])
    return inside, reached


def _adm_radii(points: Float[Tensor, "n d"], neighbours: int) -> Float[Tensor, " n"]:
    """Squared. The nearest of `neighbours` + 1 counts as the point itself, which rounding may put off zero."""
    nearest = points.new_full((len(points), neighbours + 1), torch.inf)
    for rows in _blocks(len(points), ADM_SIDE):
        for columns in _blocks(len(points), ADM_SIDE):
            nearest[rows] = _smallest(neighbours + 1, nearest[rows], _adm_distances(points[rows], points[columns]))
    return nearest.amax(1)


def _adm_distances(u: Float[Tensor, "r d"], v: Float[Tensor, "c d"]) -> Float[Tensor, "r c"]:
    """Squared, in float16; in float32 where anything of the block is not finite in float16."""
    largest, squares = _expanded(u.half(), v.half())
    if not largest.isfinite():
        del squares     # before there are two
        _, squares = _expanded(u, v)
    return squares


def _expanded(u: Float[Tensor, "r d"], v: Float[Tensor, "c d"]) -> tuple[Float[Tensor, ""], Float[Tensor, "r c"]]:
    """The largest of |u|^2 - 2 u.v + |v|^2, NaN if one is, and all, rounded to the type of u and v after each step."""
    lengths_u, lengths_v = (x.square().sum(1, dtype=torch.float32).to(x.dtype) for x in (u, v))
    squares, columns = u.new_empty(len(u), len(v)), v.float().T
    for rows in _blocks(len(u), SIDE):
        products = (u[rows].float() @ columns).to(u.dtype)
        squares[rows] = (lengths_u[rows, None] - 2 * products + lengths_v).clamp_(min=0)
    return squares.amax(), squares
