"""Eq. 5-6. How much of the codebook is used, and how evenly: over all tokens, and level by level."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from restok.errors import InputError

EPSILON = 1e-8      # Eq. 6: inside the logarithm
Codes = Integer[Tensor, "n t"] | Integer[np.ndarray, "n t"]


def codebook_metrics(counts: Int[Tensor, "l k"], levels: Sequence[int]) -> dict:
    """Eq. 5-6. Usage (distinct codes / K), entropy in bits, perplexity 2^H and dead codes, pooled over images and positions.

    `counts` are those of `code_counts`, `levels` the tokens of each latent level; the same numbers follow for each under
    "levels". Raises ValueError where a level has no codes.
    """
    if not counts.sum(1).all():
        raise InputError("no codes: take those of one image or more")
    by_level = zip(levels, counts, strict=True)
    return _describe(counts.sum(0)) | {
        "levels": [{"level": i, "tokens": tokens} | _describe(row) for i, (tokens, row) in enumerate(by_level, start=1)]}


def code_counts(codes: Codes, codebook_size: int, levels: Sequence[int]) -> Int[Tensor, "l k"]:
    """How often each level uses each code. Counts of two sets of images add.

    Raises ValueError on codes that are no integers, on none at all, on codes outside the codebook and on levels that do not
    add up to the tokens of an image.
    """
    codes = torch.as_tensor(codes)
    if codes.is_floating_point() or codes.ndim != 2 or not codes.numel():
        raise InputError(f"codes of {codes.dtype} and shape {tuple(codes.shape)}: expected integers, images by tokens")
    if sum(levels) != codes.shape[1]:
        raise InputError(f"levels of {sum(levels)} tokens, but images have {codes.shape[1]}: take the tokenizer's own levels")
    codes = codes.to(torch.int64)
    if codes.min() < 0 or codes.max() >= codebook_size:
        raise InputError(f"codes from {codes.min()} to {codes.max()} are outside a codebook of {codebook_size}")
    return torch.stack([part.flatten().bincount(minlength=codebook_size) for part in codes.split(list(levels), dim=1)])


def _describe(counts: Int[Tensor, " k"]) -> dict:
    used = int((counts > 0).sum())
    p = counts.double() / counts.sum()                                                     # k, Eq. 5
    entropy = max(0.0, -(p * (p + EPSILON).log2()).sum().item())       # Eq. 6, whose epsilon takes one code's below 0
    return {"used": used, "usage": used / len(counts), "dead": len(counts) - used, "entropy": entropy, "perplexity": 2**entropy}
