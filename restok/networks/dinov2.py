"""DINOv2 as a judge of images: ViT-L/14 on 224 pixels, as Meta's own code runs it, and torch-fidelity, or EDM2, feeds it."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from restok.errors import InputError
from restok.files import sha256_file
from restok.networks.inception import Features
from restok.networks.pretrained import PRETRAINED, pretrained_file, read_tensors

NETWORK = "vit_large_patch14_dinov2"                         # by its timm name
SIDE, PATCH = 224, 14
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)      # ImageNet's


class DINOv2(nn.Module):
    """8-bit images of any size -> Features, of which the pooled ones are the class token after the last norm.

    Images are resized by TensorFlow 1's bilinear filter, as torch-fidelity does, or by an antialiased `bicubic` one, as EDM2's
    calculate_metrics.py does, and dgm-eval but for its rounding to 8 bits.
    """

    spatial = classes = 0                # features that keep the place, and logits

    def __init__(self, network: nn.Module, bicubic: bool = False):
        super().__init__()
        self.network, self.dims, self.bicubic = network.requires_grad_(False), network.embed_dim, bicubic
        self.eval()

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> Features:
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
        if self.bicubic:
            pixels = F.interpolate(images.float(), size=(SIDE, SIDE), mode="bicubic", antialias=True)
        else:
            pixels = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIDE, SIDE), align_corners=False)
        mean, deviation = (pixels.new_tensor(value)[:, None, None] * 255 for value in (MEAN, DEVIATION))
        return Features(self.network((pixels - mean) / deviation), None, None)


def load_dinov2(weights: str | Path | None, setting: str | None = None, bicubic: bool = False) -> tuple[DINOv2, str]:
    """The network with the weights of a file, frozen, in eval mode on the CPU, and the file's sha256.

    None takes Meta's, which `restok fetch` brings; `setting` is the parameter that names a file. Raises what `pretrained_file`
    and `read_tensors` raise, ValueError for tensors that do not fit.
    """
    path = pretrained_file(weights, PRETRAINED["dinov2"], setting)
    state = read_tensors(path)
    try:
        network = dinov2_network(state, bicubic=bicubic)
    except (KeyError, ValueError, RuntimeError) as error:      # load_state_dict raises RuntimeError on other shapes
        raise InputError(f"{path}: not the weights of {PRETRAINED['dinov2'].name}: {error}") from error
    return network, sha256_file(path)


def dinov2_network(state: Mapping[str, Tensor] | None, name: str = NETWORK, bicubic: bool = False) -> DINOv2:
    """The network with these weights, named as in Meta's file; None leaves them random. `name` is timm's of a network of its
    kind. Raises ValueError for tensors that are missing or too many."""
    import timm
    network = timm.create_model(name, img_size=SIDE, num_classes=0, weight_init="" if state is None else "skip")
    if state is not None:
        own = {key: tensor for key, tensor in state.items() if key != "mask_token"}       # which only its training used
        own["pos_embed"] = positions(own["pos_embed"], SIDE // PATCH)
        network.load_state_dict(own)
    return DINOv2(network, bicubic)


def positions(learned: Float[Tensor, "1 n d"], side: int) -> Float[Tensor, "1 m d"]:
    """Of the class token and a square grid of patches, brought to `side` patches a side as Meta's code does: bicubic, by a
    scale that is a tenth of a patch too large."""
    own = round((learned.shape[1] - 1) ** 0.5)
    grid = learned[:, 1:].float().unflatten(1, (own, own)).permute(0, 3, 1, 2)                 # 1 d own own
    scale = (side + 0.1) / own
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic") if own != side else grid
    return torch.cat([learned[:, :1].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
