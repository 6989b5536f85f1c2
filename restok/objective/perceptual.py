"""Perceptual distances between images: LPIPS, and its recipe on the demo's classifier."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok.config import Perceptual
from restok.networks.backbone import Frozen
from restok.networks.classifier import load_classifier
from restok.networks.lpips import load_lpips, random_lpips
from restok.networks.pretrained import at_random


class LPIPS(Frozen):
    """LPIPS version 0.1 (Zhang et al. 2018) between images in [0, 1]."""

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Gradients flow to `a` alone."""
        return self.network(a, b.detach(), normalize=True)[:, 0, 0, 0]       # normalize: [0, 1] to the [-1, 1] it expects


class ClassifierDistance(Frozen):
    """LPIPS without its learned weights: squared distance of unit features, mean over positions and over stages."""

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Gradients flow to `a` alone."""
        with torch.no_grad():
            target = self.network.maps(b)
        unit = partial(F.normalize, dim=1, eps=1e-3)      # the floor bounds the gradient where almost every ReLU is dead
        stages = [(unit(x) - unit(y)).square().sum(dim=1).mean(dim=(1, 2))
                  for x, y in zip(self.network.maps(a), target, strict=True)]
        return torch.stack(stages).mean(dim=0)


def build_perceptual(config: Perceptual, classifier: str | Path | None) -> nn.Module:
    """A frozen module(a, b): images in [0, 1] -> one distance an image; 'digits' reads the folder `classifier`.

    Raises ValueError or FileNotFoundError without a classifier, and what `load_lpips` raises.
    """
    if config.network == "digits":
        return ClassifierDistance(load_classifier(classifier))
    name = config.network.removeprefix("lpips-")
    return LPIPS(random_lpips(name) if at_random.get() else load_lpips(name, weights=None)[0])
