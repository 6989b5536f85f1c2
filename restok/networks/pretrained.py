"""Files of pretrained weights: where they come from, under which licence, and reading them without running what they hold.

Nothing is downloaded here but by `download`, which `restok fetch` alone calls: jobs run without a network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from restok.errors import InputError, RestokError
from restok.files import reading
from restok.nn.finite import not_finite
from restok.progress import CONSOLE


class FetchError(RestokError, FileNotFoundError):
    """Pretrained weights that are not there, or are others than published; it names the file and the remedy."""


class Pretrained(NamedTuple):
    """A file in the folder in which torch keeps its downloads."""

    url: str
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        return Path(self.url).name

    @property
    def place(self) -> Path:
        """Where it is looked for."""
        return Path(torch.hub.get_dir(), "checkpoints", self.name)

    @property
    def facts(self) -> str:
        return f"its sha256 begins with {self.sha256[:8]}; licence: {self.licence}"

    def found(self) -> Path | None:
        return self.place if self.place.is_file() else None

    def published(self, file: Path) -> str:
        """The sha256 that `file` is to have."""
        return self.sha256

    def download(self) -> None:
        """Bring the file whole, with its sha256, or leave nothing. Raises FetchError."""
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(self.place), self.sha256, progress=CONSOLE.is_terminal)
        except (OSError, HTTPException, RuntimeError) as error:      # no place, no room, no network, another hash
            raise FetchError(f"{self.name}: cannot be downloaded ({error}); download {self.url} elsewhere ({self.facts}) and "
                             f"put it at {self.place}, or below another TORCH_HOME") from error


# Vision transformers are in timm's own list, with place and licence (restok/networks/hub.py): here DINOv3-L (DINOv3's own
# licence) and DINO-S (Apache-2.0).
PRETRAINED = {
    "inception": Pretrained("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                            "weights-inception-2015-12-05-6726825d.pth",
                            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2", "Apache-2.0"),
    "dinov2": Pretrained("https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
                         "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428", "Apache-2.0"),
    "alex": Pretrained("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                       "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", "not stated by torchvision"),
    "vgg": Pretrained("https://download.pytorch.org/models/vgg16-397923af.pth",
                      "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", "not stated by torchvision")}


at_random: ContextVar[bool] = ContextVar("at_random", default=False)


BRINGS = "run `restok fetch`, with the same --params, --set and --features, where there is internet,"


@contextmanager
def random_weights() -> Iterator[None]:
    """Networks that are loaded within have random weights: they take as long as others, and need no file."""
    token = at_random.set(True)
    try:
        yield
    finally:
        at_random.reset(token)


def pretrained_file(given: str | Path | None, source: Pretrained, setting: str | None = None) -> Path:
    """The file to read: `given`, or for None the one that `restok fetch` brings. `setting` is the parameter that names `given`,
    for the error's remedy.

    Raises FileNotFoundError, which says what brings it, and what to put where without, for a file that is not there.
    """
    path = source.place if given is None else Path(given)
    if path.is_file():
        return path
    if given is not None:
        raise FetchError(f"{path}: no such file; download {source.url} ({source.facts}) there, or name no file and run "
                         "`restok fetch`, which brings it")
    other = f", or let {setting} name it" if setting else ", or below another TORCH_HOME"
    raise FetchError(f"{source.name}: is not there; {BRINGS} or "
                     f"download {source.url} ({source.facts}) and put it at {path}{other}")


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
