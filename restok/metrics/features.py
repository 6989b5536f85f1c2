"""The networks whose features the metrics compare. A value is comparable only with values from the same network, so each
network carries its name and the hash of its weights, and names the metrics: FID and IS are Inception's alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from restok import distributed
from restok.config import FDR6, Evaluation
from restok.errors import InputError
from restok.files import sha256_file
from restok.networks.classifier import load_classifier
from restok.networks.dinov2 import SIDE, dinov2_network, load_dinov2
from restok.networks.inception import Features, arranged, inception_network, load_inception
from restok.networks.saved import WEIGHTS
from restok.networks.timm_judge import SIDES, load_timm_judge, random_timm_judge


class Judge(NamedTuple):
    """A pretrained network that judges images: what a value by it depends on. Its weights are those of its key."""

    kind: str                      # names the metrics
    name: str                      # torch-fidelity's, or timm's
    load: Callable[[str | Path | None, str | None], tuple[nn.Module, str]]
    random: Callable[[], nn.Module]
    resize: str                    # of its input
    normalisation: str             # of pixels
    layer: str
    shift: float = 0.0             # about the mean of its features
    precision: str = "float32"


TENSORFLOW = "TensorFlow 1 bilinear to {} (no half-pixel centres, no antialiasing)"
BICUBIC = "bicubic, antialiased, to {}"
IMAGENETS, CLASS_TOKEN = "by ImageNet's mean and deviation", "class token after the last norm, 1024"
JUDGES = {
    "inception": Judge("inception", "inception-v3-compat", load_inception, lambda: inception_network(None),
                       TENSORFLOW.format(299), "(x - 128) / 128",
                       "the last pooling, 2048; for sFID 7 channels of Mixed_6d; logits without bias", 0.4),
    "dinov2": Judge("DINOv2", "dinov2-vit-l-14", load_dinov2, lambda: dinov2_network(None), TENSORFLOW.format(SIDE),
                    IMAGENETS, CLASS_TOKEN),
    "dinov2-bicubic": Judge("DINOv2-bicubic", "dinov2-vit-l-14", partial(load_dinov2, bicubic=True),
                            lambda: dinov2_network(None, bicubic=True), BICUBIC.format(SIDE), IMAGENETS, CLASS_TOKEN)}
for key, kind, padded, normalisation, layer in (
        ("convnextv2", "ConvNeXt-V2", "", IMAGENETS, "mean over the last map, before its norm, 1024"),
        ("dinov2-256", "DINOv2-256", ", padded to 266", IMAGENETS, CLASS_TOKEN),
        ("mae", "MAE", "", IMAGENETS, CLASS_TOKEN),
        ("siglip2", "SigLIP2", "", "by mean and deviation 0.5", "attention pooling, 1152"),
        ("clip", "CLIP", ", padded to 266", "by OpenAI CLIP's mean and deviation", CLASS_TOKEN)):
    JUDGES[key] = Judge(kind, FDR6[key], partial(load_timm_judge, key), partial(random_timm_judge, key),
                        BICUBIC.format(SIDES[key]) + padded, normalisation, layer, precision="bfloat16 autocast")


@dataclass(frozen=True)
class FeatureNetwork:
    """8-bit images -> Features, computed on `device` in full float32, or in the precision that its judge has."""

    kind: str                      # 'inception', or `kind_of` a classifier's training data; names the metrics
    name: str
    sha256: str                    # of the weights file
    dims: int                      # d
    spatial: int                   # s, 0 for none
    classes: int                   # k, 0 for none
    knows_labels: bool             # whether logit i stands for label i of the data
    resize: str
    shift: float                   # about the mean of its features
    device: torch.device
    forward: Callable[[UInt8[Tensor, "n c h w"]], Features]

    @torch.no_grad()
    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Features:
        """Raises ValueError for images that are not 8-bit RGB."""
        check_images("images", images)
        with full_precision(self.device):
            return self.forward(torch.tensor(images, device=self.device).permute(0, 3, 1, 2))

    @property
    def identity(self) -> dict:
        """What decides whether two values compare."""
        return {"kind": self.kind, "name": self.name, "sha256": self.sha256, "dims": self.dims, "resize": self.resize}


def described(features: Mapping[str, Any]) -> dict[str, Any]:
    """A network's identity and, of a pretrained one, what else a value by it depends on."""
    said = {judge.name: {key: getattr(judge, key) for key in ("normalisation", "layer", "precision")}
            for judge in JUDGES.values()}
    return {**features, **said.get(features["name"], {})}


def kind_of(data: str) -> str:
    """The kind of a classifier of these images: their name, unless it is Inception's, or they have none."""
    return f"{data}-classifier".lstrip("-") if data.lower() in ("", "inception") else data


def metric_names(kind: str) -> dict[str, str]:
    """What distance, kernel distance, sliced distance and score are called over the features of a network's kind; and the
    distance over its features that keep the place, which Inception alone has."""
    if kind == "inception":
        return {"distance": "FID", "spatial": "sFID", "kernel": "KID", "sliced": "MIND", "score": "IS"}
    return {"distance": f"FD-{kind}", "kernel": f"KD-{kind}", "sliced": f"MIND-{kind}", "score": f"IS-{kind}"}


def check_images(name: str, images: UInt8[np.ndarray, "n h w c"]) -> None:
    """Raises ValueError, which opens with `name`, for anything but 8-bit RGB."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise InputError(f"{name}: {getattr(images, 'dtype', type(images).__name__)}, not uint8; "
                         "clamp and round images to 8 bits first (restok.data.transforms.to_uint8)")
    if images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"{name}: shape {images.shape}, expected n h w 3")


def load_features(settings: Evaluation, classifier: str | Path | None,
                  device: torch.device | str | None = None, name: str | None = None) -> FeatureNetwork:
    """The network `name` of those that the settings name, None: the first, on `device` (None: a GPU where there is one).

    `classifier` is the folder of the trained classifier, which 'digits' needs. Raises FileNotFoundError that names the
    missing weights and the remedy, ValueError for weights that do not fit.
    """
    device, name = torch.device(device or distributed.device()), name or settings.features
    if name in JUDGES:
        setting, file = settings.weights_of(name)
        return judging(name, *JUDGES[name].load(file, setting), device)
    network = load_classifier(classifier).to(device)
    least = 2 ** (len(network.channels) - 1)               # the side that is halved to one pixel

    def forward(images):
        if min(images.shape[2:]) < least:
            raise InputError(f"images of {'x'.join(map(str, images.shape[2:]))}: too small for the {network.data} classifier, "
                             f"which takes {least}x{least} pixels and more; take larger images")
        features = network.pooled(images / 255)
        return Features(features, None, network.head(features))

    return FeatureNetwork(kind_of(network.data), f"{network.data} classifier", sha256_file(Path(classifier, WEIGHTS)),
                          network.width, 0, network.classes, True, "none", 0.0, device, forward)


def judging(name: str, network: nn.Module, sha256: str, device: torch.device) -> FeatureNetwork:
    """A pretrained network of JUDGES; of Inception, a file without the classifier's head gives features alone."""
    judge = JUDGES[name]
    network = arranged(network, device) if name == "inception" else network.to(device)
    return FeatureNetwork(judge.kind, judge.name, sha256, network.dims, network.spatial, network.classes, False, judge.resize,
                          judge.shift, device, network)


def random_features(name: str, device: torch.device) -> FeatureNetwork:
    """With random weights: it takes as long, and needs no file."""
    return judging(name, JUDGES[name].random(), "random", device)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """float32 as written: no TF32, no autocast, no choice of algorithm by timing; bf16 moves an FID by 2-3 %."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    torch.set_float32_matmul_precision("highest")
    try:
        with (cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False),
              torch.autocast(device.type, enabled=False)):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
