"""Finished models on disk: a folder with `model.safetensors` and the `config.json` that rebuilds the module."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from restok import config
from restok.config.load import parse
from restok.errors import RestokError
from restok.files import read_json, write_json
from restok.generator.model import HAR
from restok.tokenizer.model import ResTok


class WeightsError(RestokError):
    """A model folder that is missing, damaged, or of another architecture; the message names the file and the remedy."""


def save_model(folder: Path, model: ResTok | HAR) -> None:
    """Write the module's weights and configuration into an existing folder."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    write_json(folder / "config.json", model.config.model_dump(mode="json"))


def load_tokenizer(folder: str | Path) -> ResTok:
    """The tokenizer saved in `folder`, in eval mode on the CPU. Raises WeightsError."""
    return _load(Path(folder), ResTok, config.Tokenizer, "restok train-tokenizer")


def load_generator(folder: str | Path) -> HAR:
    """The generator saved in `folder`, in eval mode on the CPU. Raises WeightsError."""
    return _load(Path(folder), HAR, config.Generator, "restok train-generator")


class _Undrawn(TorchFunctionMode):
    """Modules built within keep their memory as it is, never touched: the file's tensors replace it.

    The meta device does the same, but there torch imports its compiler to draw weights, which takes seconds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ not in ("normal_", "uniform_", "kaiming_uniform_"):
            return function(*args, **(kwargs or {}))


def _load(folder: Path, model: type[nn.Module], settings: type[config.Config], command: str):
    weights = folder / "model.safetensors"
    if not weights.is_file() or not (folder / "config.json").is_file():
        raise WeightsError(f"{folder}: no model here (model.safetensors, config.json); `{command}` makes one")
    with torch.random.fork_rng(devices=[]), _Undrawn():
        module = model(parse(settings, read_json(folder / "config.json"), str(folder / "config.json")))
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{weights}: damaged or cut short ({error}); delete {folder} and run `{command}` again") from error
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    if wanted != found:
        names = sorted(dict(wanted.items() ^ found.items()))
        raise WeightsError(f"{weights}: does not fit the config.json beside it, first at {names[0]!r}; run `{command}` again")
    module.load_state_dict(state, assign=True)
    return module.eval()
