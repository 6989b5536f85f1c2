"""The one attention mask of the project: block-causal over groups (Fig. 8a and 8b)."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def group_of_each(sizes: Sequence[int]) -> Int[Tensor, " n"]:
    """The group of each token, counted from 0."""
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def block_causal(sizes: Sequence[int]) -> Bool[Tensor, "n n"]:
    """Fig. 8. True where the query's group is not before the key's: its own group and every earlier one."""
    group = group_of_each(sizes)
    return group[:, None] >= group[None, :]


@lru_cache(maxsize=64)
@torch.inference_mode(False)          # what is cached in a sampler must serve a trainer too
def block_causal_on(sizes: tuple[int, ...], device: torch.device) -> Bool[Tensor, "n n"]:
    return block_causal(sizes).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def group_of_each_on(sizes: tuple[int, ...], device: torch.device) -> Int[Tensor, " n"]:
    return group_of_each(sizes).to(device)
