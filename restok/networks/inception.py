"""The Inception network of FID: TensorFlow's of 2015-12-05, as torch-fidelity ports it."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from restok.errors import InputError
from restok.files import sha256_file
from restok.networks.pretrained import PRETRAINED, pretrained_file, read_tensors

HEAD = ("fc.weight", "fc.bias")    # its classifier
SPATIAL = 7                        # channels of Mixed_6d.branch1x1 that sFID takes


class Features(NamedTuple):
    """What a network says of n images, in float32: features, features that keep the place (sFID), logits."""

    pooled: Float[Tensor, "n d"]
    spatial: Float[Tensor, "n s"] | None
    logits: Float[Tensor, "n k"] | None


def load_inception(weights: str | Path | None, setting: str | None = None) -> tuple[nn.Module, str]:
    """The network with the weights of a file, frozen, in eval mode on the CPU, and the file's sha256.

    None takes torch-fidelity's, which `restok fetch` brings; `setting` is the parameter that names a file. One without the
    classifier's head gives features alone. Raises what `pretrained_file` and `read_tensors` raise, ValueError for tensors that
    do not fit.
    """
    path = pretrained_file(weights, PRETRAINED["inception"], setting)
    state = read_tensors(path)
    try:
        network = inception_network(state)
    except (ValueError, RuntimeError) as error:      # load_state_dict raises RuntimeError on other shapes
        raise InputError(f"{path}: not the weights of {PRETRAINED['inception'].name}: {error}") from error
    return network, sha256_file(path)


def inception_network(state: Mapping[str, Tensor] | None) -> nn.Module:
    """8-bit images (n 3 h w) -> Features, with logits where `state` has a head, whose bias is left out (ADM). The numbers
    `dims` and `spatial` of its features and `classes` of its logits are its attributes.

    None leaves the weights random. Raises ValueError, which names them, for tensors that are missing or too many.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    has_head = state is None or HEAD[0] in state

    class Inception(FeatureExtractorInceptionV3):
        dims, spatial, classes = 2048, 17 * 17 * SPATIAL, 1008 if has_head else 0

        def load_state_dict(self, _):
            """The state comes below: the base class would unpickle a file whatever it holds."""

        def forward(self, images):
            kept = []
            with self.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: kept.append(output)):
                pooled, *logits = super().forward(images)
            spatial = kept[0][:, :SPATIAL].permute(0, 2, 3, 1).flatten(1)                  # n 17*17*7
            return Features(pooled, spatial, logits[0] if logits else None)

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Inception("inception-v3-compat", ["2048", "logits_unbiased"] if has_head else ["2048"], nothing)
    if state is not None:
        missing, unexpected = nn.Module.load_state_dict(network, state, strict=False)
        missing = [name for name in missing if has_head or name not in HEAD]
        if missing or unexpected:
            raise InputError(f"{len(missing)} tensors missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}")
    return network


def arranged(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, as it is fastest there, with the same features to rounding: each batch norm is folded into the
    convolution before it, and on a CPU channels come last.
    """
    for block in list(network.modules()):
        if isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
            block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
    return network.to(device, memory_format=torch.channels_last if device.type == "cpu" else torch.preserve_format)
