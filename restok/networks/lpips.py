"""LPIPS (Zhang et al. 2018) as the `lpips` package computes it, its pretrained trunk from a file that is known by its hash."""

import warnings
from pathlib import Path
from typing import Literal

from torch import nn

from restok.errors import InputError
from restok.files import sha256_file
from restok.networks.pretrained import PRETRAINED, pretrained_file, read_tensors


def load_lpips(network: Literal["alex", "vgg"], weights: str | Path | None,
               setting: str | None = None) -> tuple[nn.Module, str]:
    """LPIPS version 0.1, frozen, in eval mode on the CPU, and the sha256 of its trunk's file; its heads come with the package.

    `weights` is a PyTorch file of torchvision's AlexNet or VGG-16, whole or `features.*` alone; None takes torchvision's, which
    `restok fetch` brings; `setting` is the parameter that names it. The module maps two batches of images, `b 3 h w` in [0, 1]
    where it is called with normalize=True, to distances `b 1 1 1`; AlexNet takes 31 pixels a side at the least, VGG-16 takes
    16. Raises FileNotFoundError for a file that is not there, ValueError for one that does not fit; both name the file and the
    remedy.
    """
    source = PRETRAINED[network]
    path = pretrained_file(weights, source, setting)
    state = read_tensors(path)
    model = random_lpips(network)
    trunk = {f"features.{name.partition('.')[2]}": tensor                              # slice2.3.bias is features.3.bias
             for name, tensor in model.net.state_dict().items()}
    faults = [f"{name} ({tuple(state[name].shape) if name in state else 'missing'}, not {tuple(tensor.shape)})"
              for name, tensor in trunk.items() if name not in state or state[name].shape != tensor.shape]
    if faults:
        raise InputError(f"{path}: not the weights of {source.name}, {len(faults)} of {len(trunk)} tensors do not fit: "
                         f"{', '.join(faults[:4])}{', ...' if len(faults) > 4 else ''}; download {source.url} there")
    for name, tensor in trunk.items():
        tensor.copy_(state[name])
    return model, sha256_file(path)


def random_lpips(network: Literal["alex", "vgg"]) -> nn.Module:
    """The module of `load_lpips` with a random trunk, which needs no file."""
    import lpips
    with warnings.catch_warnings(action="ignore", category=UserWarning):               # it calls torchvision in an old way
        model = lpips.LPIPS(net=network, version="0.1", pnet_rand=True, verbose=False)    # random: nothing is downloaded
    return model.requires_grad_(False).eval()
