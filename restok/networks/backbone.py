"""Pretrained vision transformers by their timm name, and what keeps any network from changing."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok.errors import InputError


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

    `weights` is a local file (safetensors or a torch pickle of tensors) that stands in for timm's download; `grid` is the
    number of patches a side, None for the network's own. Raises ValueError for a name or a file that does not fit,
    FileNotFoundError for a file that is not there, OSError when the download fails.
    """

    def __init__(self, name: str, weights: str | None, grid: int | None = None):
        super().__init__(create(name, weights))
        if not all(hasattr(self.network, a) for a in ("num_prefix_tokens", "set_input_size", "forward_intermediates")):
            raise InputError(f"network: {name} is not a plain vision transformer; take one, such as vit_small_patch16_224.dino")
        if grid is not None:
            self.network.set_input_size(img_size=grid * self.network.patch_embed.patch_size[0])
        self.name, self.width, self.depth = name, self.network.embed_dim, len(self.network.blocks)
        self.side = self.network.patch_embed.img_size[0]
        for key in ("mean", "std"):
            value = torch.tensor(self.network.pretrained_cfg[key])[:, None, None]
            self.register_buffer(key, value, persistent=False)

    def final(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """The class token and the patch tokens at the output, after the last norm; registers belong to neither."""
        tokens = self.network.forward_features(self.prepare(images))
        return tokens[:, 0], tokens[:, self.network.num_prefix_tokens:]

    def intermediate(self, images: Float[Tensor, "b 3 h w"], layers: Sequence[int]) -> list[Float[Tensor, "b n d"]]:
        """The patch tokens after each of `layers`, counted from 0 and increasing, before any output norm."""
        return self.network.forward_intermediates(self.prepare(images), indices=list(layers), stop_early=True,
                                                  output_fmt="NLC", intermediates_only=True)

    def prepare(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        if images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, size=(self.side, self.side), mode="bicubic", antialias=True)
        return (images - self.mean) / self.std


def create(name: str, weights: str | None) -> nn.Module:
    """A timm network with its pretrained weights, from the file where one is given."""
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_pretrained(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"network: {name!r} is neither 'digits' nor known to timm{hint}")
    if weights is None:
        try:
            return timm.create_model(name, pretrained=True)
        except (OSError, RuntimeError) as error:
            raise OSError(f"network: no pretrained weights of {name} ({error}); name a local file under `weights`") from error
    if not Path(weights).is_file():
        raise FileNotFoundError(f"weights: {weights} is not a file; give the weights of {name}, or null to download them")
    try:                                                       # its own number of classes, so that loading stays strict
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(weights)})
    except Exception as error:
        raise InputError(f"weights: {weights} does not hold the weights of {name}: {error}") from error
