"""The authors' files: weights, in whatever training wrapped them, and the configuration beside them."""

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from restok.compat.settings import ReleasedWeightsError
from restok.compat.weights import plain_names
from restok.config.load import Loader

PICKLES = (".bin", ".pt", ".pth")
NESTS = ("ema", "ema_model", "model", "module", "state_dict")     # under which a checkpoint keeps weights, the averaged first
MARKS = {"tokenizer": "vit_enc_model_size", "generator": "n_layer"}   # a key of each configuration alone


def weights_file(path: Path) -> Path:
    """`path`, or the one file of weights in the folder `path`. Raises ReleasedWeightsError."""
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", *PICKLES))
    files = [file for file in files if file.suffix == ".safetensors"] or files          # hubs keep both forms of one model
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ReleasedWeightsError(f"{path}: expected one file of weights (.safetensors, {', '.join(PICKLES)}), found {names}; "
                                   "name the file itself")
    return files[0]


def read_weights(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file, their names without the prefixes of wrapped modules, and the key, such as 'ema' or
    'model.state_dict', under which a checkpoint keeps them. Pickles are read as tensors alone, and run no code.

    Raises ReleasedWeightsError.
    """
    if file.exists() and file.suffix not in (".safetensors", *PICKLES):
        raise ReleasedWeightsError(f"{file}: expected .safetensors, {', '.join(PICKLES)}, or a folder with one of these")
    try:
        tree = load_file(file) if file.suffix == ".safetensors" else _unpickle(file)
    except OSError as error:
        raise ReleasedWeightsError(f"{file}: cannot be read ({error.strerror or error}); check the path") from None
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ReleasedWeightsError(f"{file}: not a checkpoint of tensors ({reason}); write its state dict alone, as "
                                   ".safetensors") from None
    except Exception as error:           # torch raises half a dozen kinds on broken files
        raise ReleasedWeightsError(f"{file}: damaged or cut short ({type(error).__name__}: {error}); download or copy it "
                                   "again") from None
    keys = []
    while isinstance(tree, Mapping) and (key := next((k for k in NESTS if isinstance(tree.get(k), Mapping)), None)):
        tree, keys = tree[key], [*keys, key]
    tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)} if isinstance(tree, Mapping) else {}
    if not tensors:
        raise ReleasedWeightsError(f"{file}: no tensors by name, neither at its top nor under {', '.join(NESTS)}")
    return plain_names(tensors), ".".join(keys) or None


def _unpickle(file: Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):                # the arguments of the authors' training
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def read_settings(kind: str, weights: Path, given: Path | None) -> tuple[dict[str, Any], Path | None]:
    """The authors' mapping of a 'tokenizer' or a 'generator' and the file, JSON or YAML, that holds it at any depth: `given`,
    else NAME.json or config.json beside the file of weights; ({}, None) where neither does.

    Raises ReleasedWeightsError where `given` has no such mapping.
    """
    files = [given] if given else [weights.with_suffix(".json"), weights.with_name("config.json")]
    for file in files:
        if given or file.is_file():
            try:
                mapping = _mapping(yaml.load(file.read_text(), Loader), MARKS[kind])
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise ReleasedWeightsError(f"{file}: cannot be read as JSON or YAML ({error})") from None
            if mapping:
                return mapping, file
    if given:
        raise ReleasedWeightsError(f"{given}: holds no configuration of a released {kind}, which has a key {MARKS[kind]!r}")
    return {}, None


def _mapping(tree: Any, mark: str) -> dict[str, Any] | None:
    """The first mapping that has the key `mark`."""
    if not isinstance(tree, dict):
        return None
    if mark in tree:
        return tree
    return next(filter(None, (_mapping(value, mark) for value in tree.values())), None)
