"""NaN and infinity, named where they appear: argmax, sorting and rounding would make whole numbers of them, like any other."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from restok.errors import RestokError


class NotFiniteError(RestokError):
    """Weights, images, latents or logits that hold NaN or infinity; the message names them and the remedy."""


def is_finite(x: Shaped[Tensor, "..."]) -> Bool[Tensor, ""]:
    """Whether all of x is, in one pass, on its own device: nobody waits for it until the answer is asked for."""
    return torch.stack(x.aminmax()).isfinite().all()           # the least of what holds NaN is NaN


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that hold NaN or infinity; none of these have those on the meta device, without values."""
    return [name for name, tensor in tensors.items()
            if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta and not is_finite(tensor)]


def require_finite(remedy: str, **tensors: Tensor) -> None:
    """Raises NotFiniteError, which names those of `tensors`, on one device, that hold NaN or infinity. Waits for it once."""
    if not torch.stack([is_finite(tensor) for tensor in tensors.values()]).all():
        raise NotFiniteError(f"NaN or infinity in {', '.join(not_finite(tensors))}: {remedy}")
