"""Files of pretrained weights: where they lie, how they come there, and reading them without running what they hold."""

import re
from pathlib import Path

import torch
from torch import Tensor

from restok.errors import InputError


def weights_file(given: str | Path | None, url: str, setting: str | None = None) -> Path:
    """The file to read: `given`, or for None torch's own copy of `url`, which is downloaded first where it is missing.
    `setting` is the parameter that names `given`, for the error's remedy.

    A download must have the sha256 that the name in `url` ends with ('-6726825d.pth': its first digits). Raises
    FileNotFoundError, which says what to download and where to put it, for a file that is not there and cannot come.
    """
    name = Path(url).name
    path = Path(torch.hub.get_dir(), "checkpoints", name) if given is None else Path(given)
    prefix = re.fullmatch(r".*-([0-9a-f]{8,})\.\w+", name)[1]
    if given is None and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix)
        except (OSError, RuntimeError) as error:
            other = f", or let {setting} name it" if setting else ""
            raise FileNotFoundError(f"{name}: cannot be downloaded ({error}); download {url} elsewhere (its sha256 begins with "
                                    f"{prefix}) and put it at {path}{other}") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; download {url} (its sha256 begins with {prefix}) there, or name no "
                                "file to have it downloaded")
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a PyTorch file, on the CPU. Raises ValueError, which names the file, for anything but tensors."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:      # what a foreign file raises depends on what it is, and a damaged one too
        raise InputError(f"{path}: not a PyTorch file of tensors, or damaged ({type(error).__name__}); "
                         "download it again") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: not a state dict; expected a mapping from names to tensors; download it again")
    return state
