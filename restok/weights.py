"""Finished models on disk: the tokenizer and the generator."""

from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from restok import config, tracking
from restok.generator.model import HAR
from restok.networks.saved import load_network, require_network, save_network
from restok.tokenizer.model import ResTok


def save_model(folder: str | Path, model: ResTok | HAR) -> None:
    """Write the module's weights and configuration into a folder."""
    save_network(folder, model, model.config.model_dump(mode="json"))


def load_tokenizer(folder: str | Path) -> ResTok:
    """The tokenizer saved in `folder`, or logged in MLflow as 'models:/m-...', in eval mode on the CPU. Raises WeightsError,
    ConfigError or TrackingError."""
    return _load(folder, ResTok, config.Tokenizer, "restok train-tokenizer")


def load_generator(folder: str | Path) -> HAR:
    """The generator saved in `folder`, or logged in MLflow as 'models:/m-...', in eval mode on the CPU. Raises WeightsError,
    ConfigError or TrackingError."""
    return _load(folder, HAR, config.Generator, "restok train-generator")


def require_tokenizer(folder: str | Path) -> None:
    """Raises WeightsError where a folder holds no model."""
    require_network(folder, "model", "restok train-tokenizer")


def _load(folder: str | Path, model: type[nn.Module], settings: type[config.Config], command: str) -> nn.Module:
    folder = tracking.model_folder(str(folder)) if str(folder).startswith("models:/") else folder
    with torch.random.fork_rng(devices=[]), _Undrawn():
        return load_network(folder, settings, model, "model", command)


class _Undrawn(TorchFunctionMode):
    """Modules built within keep their memory as it is, never touched: the file's tensors replace it.

    The meta device does the same, but there torch imports its compiler to draw weights, which takes seconds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ not in ("normal_", "uniform_", "kaiming_uniform_"):
            return function(*args, **(kwargs or {}))
