"""The frozen vision model whose features the tokenizer is aligned with (f of Eq. 1 and 2; the paper: DINOv3-L)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok.config import Alignment
from restok.errors import InputError
from restok.networks.backbone import Frozen, VisionTransformer
from restok.networks.classifier import SmallClassifier, load_classifier


class Teacher(Frozen):
    """Called with images, gives one class feature an image and one patch feature a position of the tokenizer's grid.

    `class_width` and `patch_width` are their widths. No gradient passes.
    """

    def __init__(self, network: nn.Module, class_width: int, patch_width: int):
        super().__init__(network)
        self.class_width, self.patch_width = class_width, patch_width


class TransformerTeacher(Teacher):
    """A vision transformer at the resolution at which its patches are the tokenizer's grid: 256 px for 16 x 16 of 16 px."""

    def __init__(self, network: VisionTransformer):
        if getattr(network.network, "cls_token", None) is None:
            raise InputError(f"network: {network.name} has no class token for the encoder to be aligned with")
        super().__init__(network, class_width=network.width, patch_width=network.width)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b m t"]]:
        return self.network.final(images)


class ClassifierTeacher(Teacher):
    """The demo's classifier: its penultimate features, and its last map, resized to the tokenizer's grid."""

    def __init__(self, network: SmallClassifier, grid: int):
        super().__init__(network, class_width=network.width, patch_width=network.channels[-1])
        self.grid = grid

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b m s"]]:
        last = self.network.maps(images)[-1]                                                               # b s gh gw
        patches = F.interpolate(last, size=(self.grid, self.grid), mode="bilinear", antialias=True)        # b s grid grid
        return self.network.pool(last), patches.flatten(2).mT                                              # b t, b m s


def build_teacher(config: Alignment, grid: int, classifier: str | Path | None) -> Teacher:
    """The teacher that `config` names, for a tokenizer of grid x grid image tokens; 'digits' reads the folder `classifier`.

    Raises ValueError, FileNotFoundError or OSError, which name the key or file, where the weights are not to be had.
    """
    if config.network == "digits":
        return ClassifierTeacher(load_classifier(classifier), grid)
    return TransformerTeacher(VisionTransformer(config.network, config.weights, grid))
