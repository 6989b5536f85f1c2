"""The networks whose features the metrics compare. A value is comparable only with values from the same network, so each
network carries its name and the hash of its weights, and names the metrics: FID and IS are Inception's alone."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from restok.config import Evaluation
from restok.errors import InputError
from restok.files import sha256_file
from restok.nn.weights_file import read_tensors, weights_file

HEAD = ("fc.weight", "fc.bias")    # of the Inception network: its classifier
SPATIAL = 7                        # channels of Mixed_6d.branch1x1 that sFID takes
TF1_RESIZE = "TensorFlow 1 bilinear to 299 (no half-pixel centres, no antialiasing)"


class Features(NamedTuple):
    """What a network says of n images, in float32: features, features that keep the place (sFID), logits."""

    pooled: Float[Tensor, "n d"]
    spatial: Float[Tensor, "n s"] | None
    logits: Float[Tensor, "n k"] | None


@dataclass(frozen=True)
class FeatureNetwork:
    """8-bit images -> Features, computed in full float32 on `device`."""

    kind: str                      # 'inception', or what its training data are called; names the metrics
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


def metric_names(kind: str) -> dict[str, str]:
    """What distance, kernel distance and score are called over the features of a network's kind; and the distance over its
    features that keep the place, which Inception alone has."""
    if kind == "inception":
        return {"distance": "FID", "spatial": "sFID", "kernel": "KID", "score": "IS"}
    return {"distance": f"FD-{kind}", "kernel": f"KD-{kind}", "score": f"IS-{kind}"}


def check_images(name: str, images: UInt8[np.ndarray, "n h w c"]) -> None:
    """Raises ValueError, which opens with `name`, for anything but 8-bit RGB."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise InputError(f"{name}: {getattr(images, 'dtype', type(images).__name__)}, not uint8; "
                         "clamp and round images to 8 bits first (restok.data.transforms.to_uint8)")
    if images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"{name}: shape {images.shape}, expected n h w 3")


def load_features(settings: Evaluation, classifier: str | Path | None,
                  device: torch.device | str | None = None) -> FeatureNetwork:
    """The network that `settings.features` names, on `device` (None: a GPU where there is one).

    `classifier` is the folder of the trained classifier, which 'digits' needs. Raises FileNotFoundError that names the
    missing weights and the remedy, ValueError for weights that do not fit.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if settings.features == "inception":
        return _inception(settings.weights, device)
    if classifier is None:
        raise InputError(f"features {settings.features!r} need a classifier: name its folder with --classifier, or train one "
                         "with `restok train-classifier`")
    return _classifier(Path(classifier), device)


def _classifier(folder: Path, device: torch.device) -> FeatureNetwork:
    from restok.nn.classifier import load_classifier
    network = load_classifier(folder).to(device)

    def forward(images):
        features = network.pooled(images / 255)
        return Features(features, None, network.head(features))

    return FeatureNetwork(network.data, f"{network.data} classifier", sha256_file(folder / "model.safetensors"), network.width,
                          0, network.classes, True, "none", 0.0, device, forward)


def _inception(weights: str | None, device: torch.device) -> FeatureNetwork:
    """The 2015-12-05 TensorFlow network of FID. A file without the classifier's head gives features alone."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    path = weights_file(weights, URL_INCEPTION_V3, "evaluation.weights")
    try:
        network = inception_network(read_tensors(path))
    except (ValueError, RuntimeError) as error:      # load_state_dict raises RuntimeError on other shapes
        raise InputError(f"{path}: not the weights of {Path(URL_INCEPTION_V3).name}: {error}") from error
    if device.type == "cpu":
        network = network.to(memory_format=torch.channels_last)      # about 1.5 times as fast there
    classes = network.fc.out_features if network.has_head else 0
    return FeatureNetwork("inception", "inception-v3-compat", sha256_file(path), 2048, 17 * 17 * SPATIAL, classes, False,
                          TF1_RESIZE, 0.4, device, network.to(device))


def inception_network(state: Mapping[str, Tensor] | None) -> nn.Module:
    """torch-fidelity's network: 8-bit images -> Features, with logits where `state` has a head, whose bias is left out (ADM).

    None leaves the weights random. Raises ValueError, which names them, for tensors that are missing or too many.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Inception(FeatureExtractorInceptionV3):
        has_head = state is None or HEAD[0] in state

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
    wanted = ["2048", "logits_unbiased"] if Inception.has_head else ["2048"]
    network = Inception("inception-v3-compat", wanted, nothing)
    if state is not None:
        missing, unexpected = nn.Module.load_state_dict(network, state, strict=False)
        missing = [name for name in missing if Inception.has_head or name not in HEAD]
        if missing or unexpected:
            raise InputError(f"{len(missing)} tensors missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}")
    return network


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
