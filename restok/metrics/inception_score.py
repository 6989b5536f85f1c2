"""The Inception score: how sure the classifier is of each image, and how evenly the images spread over its classes."""

import torch
from jaxtyping import Float
from torch import Tensor


def inception_score(logits: Float[Tensor, "n k"], splits: int = 1) -> float:
    """exp of the mean over images of KL(p(class | image) || p(class)), averaged over contiguous splits in the order given.

    1 (no image tells anything) to k. Log-probabilities are logits too. ADM takes splits of 5,000 images, which must therefore
    not be sorted by class; TiTok takes one. Raises ValueError on NaN and on fewer images than splits.
    """
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{splits} splits of {len(logits)} images: take from 1 split to one an image")
    p = logits.to(torch.float64).softmax(1)                                                # n k
    if p.isnan().any():
        raise ValueError("the logits hold NaN or infinity: look at the images and at the feature network's weights")
    scores = [_entropy(part.mean(0)) - _entropy(part).mean() for part in p.tensor_split(splits)]   # mean KL, in nats
    return torch.stack(scores).exp().mean().item()


def _entropy(p: Float[Tensor, "... k"]) -> Float[Tensor, "..."]:
    return torch.special.entr(p).sum(-1)
