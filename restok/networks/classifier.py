"""A small convolutional classifier: the feature network of experiments on small images, where no pretrained one applies."""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok.config.base import Config, Positive, Positives
from restok.errors import InputError
from restok.networks.saved import load_network, require_network, save_network


class SmallClassifier(nn.Module):
    """Stages of two 3x3 convolutions; every stage but the last ends in a halving of the resolution.

    GroupNorm, in one group, makes an image's features independent of its batch and of the training mode. `data` names the
    images it is trained on, and with them the metrics on its features: FD-digits.
    """

    def __init__(self, classes: int, channels: Sequence[int], data: str = "digits"):
        super().__init__()
        self.classes, self.channels, self.data, self.width = classes, tuple(channels), data, channels[-1]
        self.stages = nn.ModuleList(stage(*pair) for pair in zip((3, *channels[:-1]), channels, strict=True))
        self.penultimate = nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU())
        self.head = nn.Linear(self.width, classes)

    def maps(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c gh gw"]]:
        """One map a stage, finest first; images in [0, 1] with sides that halve once between any two stages."""
        x, maps = 2 * images - 1, []
        for i, layers in enumerate(self.stages):
            x = layers(F.avg_pool2d(x, 2) if i else x)
            maps.append(x)
        return maps

    def pool(self, last: Float[Tensor, "b c gh gw"]) -> Float[Tensor, "b d"]:
        """The last of `maps` as one vector an image."""
        return self.penultimate(last.mean(dim=(2, 3)))

    def pooled(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Features of the penultimate layer, of width `width`."""
        return self.pool(self.maps(images)[-1])

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Logits, one a class."""
        return self.head(self.pooled(images))

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and config.json, from which `load_classifier` builds the module again."""
        save_network(folder, self, {"classes": self.classes, "channels": self.channels, "data": self.data})


def stage(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.GroupNorm(1, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


CALLED = "classifier", "restok train-classifier"      # what messages call it, and what makes one


class Settings(Config):
    """What `SmallClassifier` is built from."""

    classes: Positive
    channels: Positives
    data: str


def require_classifier(folder: str | Path) -> None:
    """Raises NoWeightsError where a folder holds none."""
    require_network(folder, *CALLED)


def load_classifier(folder: str | Path | None) -> SmallClassifier:
    """A saved classifier, frozen and in evaluation mode, on the CPU: the network behind the name 'digits'.

    Raises ValueError where no folder is named, and what `load_network` raises.
    """
    if folder is None:
        raise InputError("'digits' needs a classifier: name its folder with --classifier, or train one with "
                         "`restok train-classifier`")
    classifier = load_network(folder, Settings, lambda settings: SmallClassifier(**dict(settings)), *CALLED)
    # It draws weights first: what training draws next comes after them.
    return classifier.requires_grad_(False)
