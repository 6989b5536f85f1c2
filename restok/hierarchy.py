"""The spine: group sizes that double, the grids they fill, and the prefixes they add up to (Fig. 2b, Fig. 4, Table 5).

Every list of 1, 1, 2, 4, ... in the project comes from here: latent levels, steps of the generator, lengths of nested dropout.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

Grid = tuple[int, int]   # height, width


def group_sizes(total: int, first: int = 1) -> tuple[int, ...]:
    """`first` groups of one token, then groups that each double the length so far, up to `total` tokens.

    `first` = 1 gives the latent levels (and the 8-step generator), 4 the 9-step generator, `total` vanilla autoregression.
    Raises ValueError when doubling `first` never arrives at `total`.
    """
    sizes = [1] * first
    while 0 < sum(sizes) < total:
        sizes.append(sum(sizes))
    if sum(sizes) != total:
        raise ValueError(f"doubling from {first} single tokens never arrives at {total}: take {first} times a power of two")
    return tuple(sizes)


def prefixes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Tokens present after each group: 1, 2, 4, 8, ... for the latent levels."""
    return tuple(accumulate(sizes))


def keep_probabilities(total: int, minimum: int, drop: float) -> dict[int, Fraction]:
    """Table 9. Tokens that nested dropout keeps, and how often: P(minimum 2^i) = drop 2^i / (2^k - 1), P(total) = 1 - drop."""
    shorter = prefixes(group_sizes(total, minimum))[minimum - 1:-1]
    drop = Fraction(str(drop)) if shorter else Fraction(0)
    return {kept: drop * kept / sum(shorter) for kept in shorter} | {total: 1 - drop}


def latent_grids(tokens: int) -> tuple[Grid, ...]:
    """Fig. 2b. The pooling grid of each latent level: 1x1, 1x1, 1x2, 2x2, 2x4, ...: width first, then height."""
    grids, (height, width) = [], (1, 1)
    for level, _ in enumerate(group_sizes(tokens), start=1):
        grids.append((height, width))
        if level >= 2:
            height, width = (height, width * 2) if level % 2 == 0 else (height * 2, width)
    return tuple(grids)


def merge_kernels(scales: int, factor: int, direction: str) -> tuple[Grid, ...]:
    """The window (rows, columns) of each of the S - 1 merges: 1x1 for factor 1, 2x2 for 4, and for factor 2 halves of the
    width alone ('width', the release) or of the width and the height in turn ('2d')."""
    halves = {"width": [(1, 2)], "2d": [(1, 2), (2, 1)]}[direction]
    cycle = {1: [(1, 1)], 2: halves, 4: [(2, 2)]}[factor]
    return tuple(cycle[i % len(cycle)] for i in range(scales - 1))


def scale_grids(side: int, kernels: Sequence[Grid]) -> tuple[Grid, ...]:
    """The grids of the image scales, finest (side x side) to coarsest. Raises ValueError where a merge does not divide."""
    grids = [(side, side)]
    for rows, columns in kernels:
        height, width = grids[-1]
        if height % rows or width % columns:
            raise ValueError(f"merging {rows}x{columns} does not divide a grid of {height}x{width}")
        grids.append((height // rows, width // columns))
    return tuple(grids)


def merge_layers(layers: int, scales: int) -> tuple[int, ...]:
    """The layers, counted from 1, whose block merges: int(i N / S) for i = 1 .. S-1 (6, 12, 18 of 24)."""
    return tuple(i * layers // scales for i in range(1, scales))
