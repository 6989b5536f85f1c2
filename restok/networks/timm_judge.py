"""FDr6's networks beside Inception as judges of images: timm's, with the inputs and features of arXiv 2604.28190."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from restok.config import FDR6
from restok.files import sha256_file
from restok.networks.backbone import Frozen, create
from restok.networks.hub import Hosted
from restok.networks.inception import Features
from restok.networks.pretrained import random_weights

SIDES = {"convnextv2": 224, "dinov2-256": 256, "mae": 224, "siglip2": 224, "clip": 256}        # pixels of their inputs
# Of transformers: positions are resampled to the input, and 256 pixels padded to whole patches of 14, as timm does it.
DYNAMIC = {"dynamic_img_size": True, "dynamic_img_pad": True}


class TimmJudge(Frozen):
    """8-bit images of any size -> Features in float32, of which the pooled ones are the mean of a map, the class token, or what
    attention pools, whichever the network has.

    The network runs in bfloat16's autocast, also on a CPU: the published normalisers were measured so.
    """

    spatial = classes = 0                # features that keep the place, and logits

    def __init__(self, network: nn.Module, side: int):
        super().__init__(network)
        self.side, self.dims = side, network.num_features

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> Features:
        pixels, network = images.float() / 255, self.network
        if pixels.shape[-2:] != (self.side, self.side):
            pixels = F.interpolate(pixels, size=(self.side, self.side), mode="bicubic", antialias=True)      # n 3 s s
        mean, deviation = (pixels.new_tensor(network.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
        with torch.autocast(images.device.type, torch.bfloat16):
            found = network.forward_features((pixels - mean) / deviation)                  # n t d, or n d h w
            if found.ndim == 4:
                pooled = found.mean((2, 3))
            else:
                pooled = found[:, 0] if network.num_prefix_tokens else network.pool(found)
        return Features(pooled.float(), None, None)


def load_timm_judge(key: str, weights: str | Path | None, setting: str = "weights") -> tuple[TimmJudge, str]:
    """One of FDr6's networks, on the CPU, and the sha256 of its weights: a file's, or with None those that `restok fetch`
    brings; `setting` is the parameter that names a file. Raises what `restok.networks.backbone.create` raises."""
    name = FDR6[key]
    network = create(name, weights, setting, **(DYNAMIC if name.startswith("vit_") else {}))
    return TimmJudge(network, SIDES[key]), sha256_file(weights or Hosted(name).required())


def random_timm_judge(key: str) -> TimmJudge:
    """With random weights."""
    name = FDR6[key]
    with random_weights():
        return TimmJudge(create(name, None, **(DYNAMIC if name.startswith("vit_") else {})), SIDES[key])
