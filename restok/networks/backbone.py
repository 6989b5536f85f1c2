"""Frozen networks that teach and judge: the demo's classifier, and pretrained vision transformers by their timm name."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok.config import Alignment, Discriminator
from restok.errors import InputError
from restok.files import reading
from restok.networks.classifier import SmallClassifier, load_classifier
from restok.networks.hub import Hosted
from restok.networks.pretrained import PRETRAINED, Pretrained, at_random
from restok.nn.finite import not_finite


class Frozen(nn.Module):
    """A network whose parameters take no gradient and which stays in evaluation mode; gradients still pass through it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)


class VisionTransformer(Frozen):
    """A timm vision transformer for images of any size: resized to its patches, normalised with its own mean and deviation.

    `weights` is a local file (safetensors or a torch pickle of tensors); None takes the one that `restok fetch` brings. `grid`
    is the number of patches a side, None for the network's own. Raises ValueError for a name or a file that does not fit,
    FileNotFoundError for a file that is not there.
    """

    def __init__(self, name: str, weights: str | None, grid: int | None = None):
        super().__init__(create(name, weights))
        if not all(hasattr(self.network, a) for a in ("num_prefix_tokens", "set_input_size", "forward_intermediates")):
            raise InputError(f"network: {name} is not a plain vision transformer; take one, such as vit_small_patch16_224.dino")
        if grid is not None:
            self.network.set_input_size(img_size=grid * self.network.patch_embed.patch_size[0])
        self.width, self.side = self.network.embed_dim, self.network.patch_embed.img_size[0]
        self.widths = [self.width] * len(self.network.blocks)
        self.has_class = getattr(self.network, "cls_token", None) is not None
        for key in ("mean", "std"):
            value = torch.tensor(self.network.pretrained_cfg[key])[:, None, None]
            self.register_buffer(key, value, persistent=False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """The class token and the patch tokens at the output, after the last norm; registers belong to neither."""
        tokens = self.network.forward_features(self.prepare(images))
        return tokens[:, 0], tokens[:, self.network.num_prefix_tokens:]

    def tokens(self, images: Float[Tensor, "b 3 h w"], layers: Sequence[int]) -> list[Float[Tensor, "b n d"]]:
        """The patch tokens after each of `layers`, counted from 0 and increasing, before any output norm."""
        return self.network.forward_intermediates(self.prepare(images), indices=list(layers), stop_early=True,
                                                  output_fmt="NLC", intermediates_only=True)

    def prepare(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        if images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, size=(self.side, self.side), mode="bicubic", antialias=True)
        return (images - self.mean) / self.std


class FrozenClassifier(Frozen):
    """The demo's classifier in a transformer's place: the positions of its maps are the patches, `grid` of them a side."""

    def __init__(self, network: SmallClassifier, grid: int | None = None):
        super().__init__(network)
        self.width, self.widths, self.has_class, self.grid = network.width, network.channels, True, grid

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """Its penultimate features, and its last map, resized to the grid."""
        last = self.network.maps(images)[-1]                                                               # b d gh gw
        patches = F.interpolate(last, size=(self.grid, self.grid), mode="bilinear", antialias=True)        # b d grid grid
        return self.network.pool(last), patches.flatten(2).mT                                              # b d, b n d

    def tokens(self, images: Float[Tensor, "b 3 h w"], layers: Sequence[int]) -> list[Float[Tensor, "b n _"]]:
        maps = self.network.maps(images)
        return [maps[layer].flatten(2).mT for layer in layers]


def load_backbone(config: Alignment | Discriminator, classifier: str | Path | None,
                  grid: int | None = None) -> VisionTransformer | FrozenClassifier:
    """The network that `config` names; 'digits' reads the folder `classifier`. Called with images in [0, 1], it gives one
    class feature an image and one patch feature a position of the `grid`, without gradient; `tokens` are those of its layers.

    Raises ValueError or FileNotFoundError, which name the key or file, where the weights are not to be had.
    """
    if config.network == "digits":
        return FrozenClassifier(load_classifier(classifier), grid)
    return VisionTransformer(config.network, config.weights, grid)


def create(name: str, weights: str | Path | None, setting: str = "weights", **options: bool) -> nn.Module:
    """A timm network, built with its `options`, with its pretrained weights, from the file where one is given, else from the
    hub's cache; nothing is downloaded. `setting` is the parameter that names a file."""
    import timm

    require_known(name)
    if at_random.get():
        return timm.create_model(name, **options)
    source = Hosted(name, setting)
    if weights is None:
        file = source.required()
    elif not (file := Path(weights)).is_file():
        raise FileNotFoundError(f"{setting}: {weights} is not a file; give the weights of {name}, or none to take those "
                                "that `restok fetch` brings")
    # its own number of classes, so that loading stays strict; a file of the hub is read as timm reads it from there
    overlay = {"file": str(file)} | ({"custom_load": False} if weights is None else {})
    with reading(file, lambda error: InputError(f"{setting}: {file} does not hold the weights of {name}: {error}")):
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    if bad := not_finite(network.state_dict()):
        raise InputError(f"{setting}: {file}: {bad[0]} holds NaN or infinity; download the weights of {name} again")
    return network


def source_of(network: str, setting: str | None = None) -> Pretrained | Hosted:
    """Where a pretrained network comes from, of which a `setting` may name a file. Raises InputError for one that nobody
    knows."""
    if network in PRETRAINED:
        return PRETRAINED[network]
    require_known(network)
    return Hosted(network, setting or "weights")


def require_known(name: str) -> None:
    """Raises InputError for a network that timm does not know."""
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_pretrained(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"network: {name!r} is neither 'digits' nor known to timm{hint}")
