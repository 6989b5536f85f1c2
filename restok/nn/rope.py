"""Axial rotary positions from ids, and the ids of sequences that mix text-like tokens and grids (Fig. 9)."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from restok.hierarchy import Grid

Rotation = tuple[Float[Tensor, "n half"], Float[Tensor, "n half"]]   # cosines and sines, half = head width / 2


def grid_ids(grid: Grid, offset: int = 0) -> Int[Tensor, "n 2"]:
    """Row and column of each token of a grid, both counted from `offset`."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.stack([rows.flatten(), columns.flatten()], dim=1) + offset


def text_ids(count: int, offset: int = 0) -> Int[Tensor, "n 2"]:
    """A text-like token has the same id on both axes: its place, counted from `offset`."""
    return (torch.arange(count) + offset)[:, None].expand(count, 2)


def encoder_ids(grids: Sequence[Grid], latents: int) -> Int[Tensor, "n 2"]:
    """Fig. 9a. Grids in the order given (coarse to fine), each starting where the tokens so far end; then latents."""
    ids, offset = [], 0
    for grid in grids:
        ids.append(grid_ids(grid, offset))
        offset += grid[0] * grid[1]
    return torch.cat([*ids, text_ids(latents, offset)])


def decoder_ids(latents: int, grid: Grid) -> Int[Tensor, "n 2"]:
    """Fig. 9b. Latents, then the image grid."""
    return torch.cat([text_ids(latents), grid_ids(grid, latents)])


def rotation(ids: Int[Tensor, "n axes"], head_width: int, base: int) -> Rotation:
    """Angles of each token: the head is split evenly among the axes, each with frequencies base^(-2i / its share)."""
    share = head_width // ids.shape[1]
    frequencies = base ** (-torch.arange(0, share, 2, dtype=torch.float64) / share)
    angles = (ids[:, :, None].double() * frequencies).flatten(1)                # n half
    return angles.cos().float(), angles.sin().float()


def rotate(x: Float[Tensor, "b h n d"], by: Rotation) -> Float[Tensor, "b h n d"]:
    """Turn each adjacent pair of channels by its token's angle, in float32."""
    cos, sin = by
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)                     # b h n half
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def encoder_rotation(grids: tuple[Grid, ...], latents: int, head_width: int, base: int, device: torch.device) -> Rotation:
    return _to(rotation(encoder_ids(grids, latents), head_width, base), device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def decoder_rotation(latents: int, grid: Grid, head_width: int, base: int, device: torch.device) -> Rotation:
    return _to(rotation(decoder_ids(latents, grid), head_width, base), device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def sequence_rotation(length: int, head_width: int, base: int, device: torch.device) -> Rotation:
    return _to(rotation(torch.arange(length)[:, None], head_width, base), device)


def _to(by: Rotation, device: torch.device) -> Rotation:
    return by[0].to(device), by[1].to(device)
