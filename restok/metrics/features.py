"""The networks whose features the metrics compare. A value is comparable only with values from the same network, so each
network carries its name and the hash of its weights, and names the metrics: FID and IS are Inception's alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from restok.config import Evaluation
from restok.files import sha256_file

INCEPTION_SHA256 = "6726825d"      # the hash's first digits, as the file's own name gives them


@dataclass(frozen=True)
class FeatureNetwork:
    """8-bit images -> features (n d) and logits (n k), both float32 on the CPU, computed in full float32."""

    kind: str                      # of `config.Evaluation.features`; names the metrics
    name: str
    sha256: str                    # of the weights file
    dims: int                      # d
    knows_labels: bool             # whether logit i stands for label i of the data
    device: torch.device
    forward: Callable[[UInt8[Tensor, "n c h w"]], tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]]

    @torch.no_grad()
    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Raises ValueError for images that are not 8-bit RGB, and for features with NaN or infinity."""
        check_images("images", images)
        with full_precision(self.device):
            features, logits = self.forward(torch.tensor(images).permute(0, 3, 1, 2).to(self.device))
        if not (features.isfinite().all() and logits.isfinite().all()):
            raise ValueError(f"{self.name}: NaN or infinite features; look at its weights (sha256 {self.sha256})")
        return features.float().cpu(), logits.float().cpu()


def metric_names(features: str) -> dict[str, str]:
    """What the Frechet distance and the score are called over the features of `config.Evaluation.features`."""
    if features == "inception":
        return {"distance": "FID", "score": "IS"}
    return {"distance": f"FD-{features}", "score": f"IS-{features}"}


def check_images(name: str, images: UInt8[np.ndarray, "n h w c"]) -> None:
    """Raises ValueError, which opens with `name`, for anything but 8-bit RGB."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise ValueError(f"{name}: {getattr(images, 'dtype', type(images).__name__)}, not uint8; "
                         "clamp and round images to 8 bits first (restok.data.transforms.to_uint8)")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"{name}: shape {images.shape}, expected n h w 3")


def extract(network: FeatureNetwork, images: UInt8[np.ndarray, "n h w c"],
            batch_size: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
    """Features and logits of many images, a batch at a time."""
    batches = [network(images[start:start + batch_size]) for start in range(0, len(images), batch_size)]
    features, logits = zip(*batches, strict=True)
    return torch.cat(features), torch.cat(logits)


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
        raise ValueError(f"features {settings.features!r} need a classifier: train one with `restok train-classifier`")
    return _classifier(settings.features, Path(classifier), device)


def _classifier(kind: str, folder: Path, device: torch.device) -> FeatureNetwork:
    from restok.nn.classifier import load_classifier
    network = load_classifier(folder).to(device)

    def forward(images):
        features = network.pooled(images / 255)
        return features, network.head(features)

    digest = sha256_file(folder / "model.safetensors")
    return FeatureNetwork(kind, f"{kind} classifier", digest, network.width, True, device, forward)


def _inception(weights: str | None, device: torch.device) -> FeatureNetwork:
    """The 2015-12-05 TensorFlow network, with its own resizing: 2048 pooled features, logits without their bias."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    path = _downloaded(URL_INCEPTION_V3) if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, but evaluation.weights names it; "
                                f"download {URL_INCEPTION_V3} there, or set evaluation.weights to null")
    digest = sha256_file(path)
    try:
        torch.load(path, map_location="cpu", weights_only=True)     # tensors only: torch-fidelity would unpickle anything
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path)).to(device)
    except Exception as error:      # what a foreign file raises depends on what it is
        raise ValueError(f"{path}: not the weights of {Path(URL_INCEPTION_V3).name}: {error}") from error
    return FeatureNetwork("inception", network.get_name(), digest, 2048, False, device, network)


def _downloaded(url: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=INCEPTION_SHA256)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(f"{path.name}: cannot be downloaded ({error}); download {url} elsewhere "
                                    f"and let evaluation.weights name the file, or put it at {path}") from error
    return path


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
