"""The residual merging block (Algorithm 2, Fig. 2c)."""

from jaxtyping import Float
from torch import Tensor

from restok.hierarchy import Grid


def merge(p: Float[Tensor, "b n d"], grid: Grid, kernel: Grid, how: str) -> Float[Tensor, "b m d"]:
    """Merge a scale's tokens in windows of `kernel` rows and columns: the average, or ('nearest') the first of each."""
    rows, columns = kernel
    p = p.unflatten(1, (grid[0] // rows, rows, grid[1] // columns, columns))    # b gh r gw c d
    return (p.mean(dim=(2, 4)) if how == "average" else p[:, :, 0, :, 0]).flatten(1, 2)


def upsample(p: Float[Tensor, "b m d"], grid: Grid, kernel: Grid) -> Float[Tensor, "b n d"]:
    """The merged tokens, each repeated over its window of a `grid`-sized scale."""
    rows, columns = kernel
    p = p.unflatten(1, (grid[0] // rows, grid[1] // columns))                   # b gh gw d
    return p.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2).flatten(1, 2)


def split_scale(p: Float[Tensor, "b n d"], grid: Grid, kernel: Grid, how: str,
                residual: bool) -> tuple[Float[Tensor, "b m d"], Float[Tensor, "b n d"]]:
    """Algorithm 2, lines 3 and 4: the new coarser scale, and the finer one less what the coarser explains."""
    coarser = merge(p, grid, kernel, how)
    return coarser, p - upsample(coarser, grid, kernel) if residual else p
