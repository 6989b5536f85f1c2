"""The authors' files: weights, in whatever training wrapped them, and the configuration beside them."""

import argparse
import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from safetensors.torch import load_file
from torch import Tensor

from restok.compat.settings import ReleasedWeightsError
from restok.compat.weights import plain_names
from restok.config.text import ConfigError, read_yaml
from restok.files import reading

PICKLES = (".bin", ".pt", ".pth")
INDEX, SHARD = ".index.json", re.compile(r"-\d{5}-of-\d{5}$")     # of weights in several files: which holds what; each of them
NESTS = ("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "shadow",
         "model", "module", "state_dict")                         # under which a checkpoint keeps weights, the averaged first
MARKS = {"tokenizer": "vit_enc_model_size", "generator": "n_layer"}   # a key of each configuration alone


class Index(BaseModel):
    """What hubs write beside weights in several files: the file of each tensor, in the same folder."""

    weight_map: Annotated[dict[str, Annotated[str, Field(pattern=r"^[^/\\]+$")]], Field(min_length=1)]


def weights_file(path: Path) -> Path:
    """`path`, or the one file of weights, or the index of several, in the folder `path`. Raises ReleasedWeightsError."""
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", *PICKLES) or file.name.endswith(INDEX))
    files = [file for file in files if ".safetensors" in file.name] or files            # hubs keep both forms of one model
    whole = [file for file in files if not SHARD.search(file.stem)]
    if len(whole) != 1:
        names = ", ".join(file.name for file in files) or "none"
        remedy = f"add the {INDEX} that came with them" if files and not whole else "name the file itself"
        raise ReleasedWeightsError(f"{path}: expected one file of weights (.safetensors, {', '.join(PICKLES)}) or several with "
                                   f"their {INDEX}, found {names}; {remedy}")
    return whole[0]


def shards(file: Path) -> dict[str, list[str]]:
    """The names of the tensors in each of the files that an index lists; none for any other file. Raises
    ReleasedWeightsError, which names those that are not there."""
    if not file.name.endswith(INDEX):
        return {}
    _require_file(file)
    foreign = "not an index of weights in several files"
    with reading(file, lambda error: ReleasedWeightsError(f"{file}: {foreign} ({error}); download it again")):
        index = Index.model_validate_json(file.read_bytes(), strict=True)
    listed = defaultdict(list)
    for name, shard in index.weight_map.items():
        listed[shard].append(name)
    if absent := sorted(shard for shard in listed if not file.with_name(shard).is_file()):
        raise ReleasedWeightsError(f"{file}: lists {', '.join(absent)}, not beside it; download all {len(listed)} files")
    return listed


def read_weights(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file, or of all that an index lists, their names without the prefixes of wrapped modules, and the key,
    such as 'ema' or 'model.state_dict', under which a checkpoint keeps them. Pickles are read as tensors alone, and run no
    code.

    Raises ReleasedWeightsError, FileError for a file that is there and cannot be read.
    """
    listed = shards(file)
    if not listed:
        return _read(file)
    tensors = {}
    for shard, names in listed.items():
        held, _ = _read(file.with_name(shard), alone=False)
        wanted = plain_names(dict.fromkeys(names))
        if absent := sorted(wanted.keys() - held.keys()):
            raise ReleasedWeightsError(f"{file}: {absent[0]} is not in {shard}, as it says; download both again")
        tensors |= {name: held[name] for name in wanted}
    return tensors, None


def _read(file: Path, alone: bool = True) -> tuple[dict[str, Tensor], str | None]:
    _require_file(file)
    if file.suffix not in (".safetensors", *PICKLES):
        raise ReleasedWeightsError(f"{file}: expected .safetensors, {', '.join(PICKLES)}, or a folder with one of these")
    if alone and SHARD.search(file.stem):
        raise ReleasedWeightsError(f"{file}: holds a part of a model; name the folder of all parts, or their {INDEX}")
    with reading(file, lambda error: _damaged(file, error)):
        tree = load_file(file) if file.suffix == ".safetensors" else _unpickle(file)
    keys = []
    while isinstance(tree, Mapping) and (key := next((key for key in NESTS if _holds_tensors(tree.get(key))), None)):
        tree, keys = tree[key], [*keys, key]
    found = tree.items() if isinstance(tree, Mapping) else ()
    tensors = {name: value for name, value in found if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        where = f"{'.'.join(keys)!r} holds tensors without names, as averages are kept (shadow_params)" if keys else (
                f"no tensors by name, neither at its top nor under {', '.join(NESTS)}")
        raise ReleasedWeightsError(f"{file}: {where}; save the state dict that is meant, averaged or not, in a file of its own")
    if other := [name for name, tensor in tensors.items() if tensor.is_meta or tensor.layout != torch.strided]:
        raise ReleasedWeightsError(f"{file}: {other[0]} is sparse, or without values; save dense tensors that are on a device")
    return plain_names(tensors), ".".join(keys) or None


def _holds_tensors(tree: Any, depth: int = 5) -> bool:
    """Whether a mapping, or what it holds, or lists in it hold any: other values of a checkpoint hide no weights."""
    values = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list | tuple) else ()
    return depth > 0 and any(isinstance(value, Tensor) or _holds_tensors(value, depth - 1) for value in values)


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise ReleasedWeightsError(f"{file}: cannot be read (no such file); check the path")


def _damaged(file: Path, error: Exception) -> ReleasedWeightsError:
    if isinstance(error, pickle.UnpicklingError):
        reason = str(error).partition("\n")[0]
        return ReleasedWeightsError(f"{file}: not a checkpoint of tensors ({reason}); write its state dict alone, as "
                                    ".safetensors")
    return ReleasedWeightsError(f"{file}: damaged or cut short ({type(error).__name__}: {error}); download or copy it again")


def _unpickle(file: Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):                # the arguments of the authors' training
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def read_settings(kind: str, weights: Path, given: Path | None) -> tuple[dict[str, Any], Path | None]:
    """The authors' mapping of a 'tokenizer' or a 'generator' and the file, JSON or YAML, that holds it at any depth: `given`,
    else NAME.json or config.json beside the file of weights; ({}, None) where neither does.

    Raises ReleasedWeightsError where `given` has no such mapping.
    """
    beside = weights.with_name(weights.name.removesuffix(INDEX)).with_suffix(".json"), weights.with_name("config.json")
    for file in [given] if given else beside:
        if given or file.is_file():
            if mapping := _read_mapping(file, MARKS[kind]):
                return mapping, file
    if given:
        raise ReleasedWeightsError(f"{given}: holds no configuration of a released {kind}, which has a key {MARKS[kind]!r}")
    return {}, None


def _read_mapping(file: Path, mark: str) -> dict[str, Any] | None:
    def foreign(error: Exception) -> ReleasedWeightsError:
        return ReleasedWeightsError(f"{file}: cannot be read as JSON or YAML in UTF-8 ({error}); write it again, "
                                    "or move it away")

    with reading(file, foreign):
        text = file.read_text("utf-8-sig")
    try:
        return _mapping(read_yaml(text), mark)
    except ConfigError as error:
        raise foreign(error) from None


def _mapping(tree: Any, mark: str) -> dict[str, Any] | None:
    """The first mapping that has the key `mark`."""
    if not isinstance(tree, dict):
        return None
    if mark in tree:
        return tree
    return next(filter(None, (_mapping(value, mark) for value in tree.values())), None)
