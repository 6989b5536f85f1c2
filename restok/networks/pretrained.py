"""Files of pretrained weights: where they come from, under which licence, and reading them without running what they hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from restok.errors import InputError
from restok.files import reading
from restok.nn.finite import not_finite


class Pretrained(NamedTuple):
    """A file that can be downloaded, with the first digits of its sha256."""

    url: str
    digits: str
    licence: str

    @property
    def name(self) -> str:
        return Path(self.url).name


# Vision transformers are in timm's own list (`timm.get_pretrained_cfg`), with place and licence: here DINOv3-L (DINOv3's own
# licence) and DINO-S (Apache-2.0).
PRETRAINED = {
    "inception": Pretrained("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                            "weights-inception-2015-12-05-6726825d.pth", "6726825d", "Apache-2.0"),
    "alex": Pretrained("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79", "not stated by torchvision"),
    "vgg": Pretrained("https://download.pytorch.org/models/vgg16-397923af.pth", "397923af", "not stated by torchvision")}


at_random: ContextVar[bool] = ContextVar("at_random", default=False)


@contextmanager
def random_weights() -> Iterator[None]:
    """Networks that are loaded within have random weights: they take as long as others, and nothing is downloaded."""
    token = at_random.set(True)
    try:
        yield
    finally:
        at_random.reset(token)


def pretrained_file(given: str | Path | None, source: Pretrained, setting: str | None = None) -> Path:
    """The file to read: `given`, or for None torch's own copy of `source`, which is downloaded first where it is missing.
    `setting` is the parameter that names `given`, for the error's remedy.

    Raises FileNotFoundError, which says what to download and where to put it, for a file that is not there and cannot come, or
    comes with another sha256.
    """
    facts = f"its sha256 begins with {source.digits}; licence: {source.licence}"
    path = Path(torch.hub.get_dir(), "checkpoints", source.name) if given is None else Path(given)
    if given is None and not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(source.url, str(path), hash_prefix=source.digits)
        except (OSError, HTTPException, RuntimeError) as error:      # no place, no network, another hash
            other = f", or let {setting} name it" if setting else ", or below another TORCH_HOME"
            raise FileNotFoundError(f"{source.name}: cannot be downloaded ({error}); download {source.url} elsewhere "
                                    f"({facts}) and put it at {path}{other}") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; download {source.url} ({facts}) there, or name no file to have "
                                "it downloaded")
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a PyTorch file, on the CPU. Raises ValueError, which names the file, for anything but finite tensors,
    and for a file that cannot be read."""
    foreign = "not a PyTorch file of tensors, or damaged"
    with reading(path, lambda error: InputError(f"{path}: {foreign} ({type(error).__name__}); download it again")):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: not a state dict; expected a mapping from names to tensors; download it again")
    if bad := not_finite(state):
        raise InputError(f"{path}: {bad[0]} holds NaN or infinity; download it again")
    return state
