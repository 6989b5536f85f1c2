"""restok convert: the authors' released files as our folders, and our folders as their files."""

from pathlib import Path
from typing import Any

import torch

from restok import compat
from restok.compat.files import weights_file
from restok.config.load import ConfigError
from restok.files import atomic_folder, real, require_free, sha256_file, write_json
from restok.files.artifact import MANIFEST, Origin
from restok.generator.model import HAR
from restok.networks.saved import write_tensors
from restok.stages.sampler import pair
from restok.tokenizer.model import ResTok
from restok.weights import load_generator, load_tokenizer, save_model

KINDS = ("tokenizer", "generator")
COMPLETE = {"tokenizer": compat.complete_tokenizer_settings, "generator": compat.complete_generator_settings}
LOAD = {"tokenizer": compat.load_released_tokenizer, "generator": compat.load_released_generator}
SETTINGS = {"tokenizer": compat.tokenizer_settings, "generator": compat.generator_settings}

# All that a folder holds which either direction writes.
OURS = {kind / Path(name) for kind in KINDS for name in (".", "model.safetensors", "config.json", "metrics.json", MANIFEST)}
THEIRS = {Path(f"{kind}.{suffix}") for kind in KINDS for suffix in ("safetensors", "json")}


def from_release(tokenizer: Path, generator: Path | None, out: Path, tokenizer_settings: Path | None = None,
                 generator_settings: Path | None = None) -> dict[str, dict[str, Any]]:
    """Write `out`/tokenizer and `out`/generator, as the training verbs would, from the authors' files or folders (None: no
    generator). `..._settings`: their configuration, where it is not beside the weights; without one it is inferred.
    Returns what metrics.json says of each.

    Raises ReleasedWeightsError for what does not fit, FileError where `out` holds an input, or anything that this did not
    write, ConfigError where the two do not go together.
    """
    _require_replaceable(out, [tokenizer, generator, tokenizer_settings, generator_settings], OURS)
    released = {"tokenizer": _read("tokenizer", tokenizer, tokenizer_settings)}
    if generator:
        released["generator"] = _read("generator", generator, generator_settings)
        ours, theirs = (model.config for model, _ in released.values())
        if (ours.codebook_size, ours.latents) != (theirs.codebook_size, theirs.tokens):
            raise ConfigError(f"{generator}: draws {theirs.tokens} codes of {theirs.codebook_size}, but {tokenizer} has "
                              f"{ours.latents} of {ours.codebook_size}; they were not trained together")
    with atomic_folder(out) as folder:
        for kind, (model, facts) in released.items():
            save_model(folder / kind, model)
            if kind == "generator":
                facts["tokenizer"] = sha256_file(folder / "tokenizer/model.safetensors")
            write_json(folder / kind / "metrics.json", facts)
            _origin(kind, facts, {"tokenizer": tokenizer, "generator": generator}[kind]).seal(folder / kind, out / kind)
    return {kind: facts for kind, (_, facts) in released.items()}


def _origin(kind: str, facts: dict[str, Any], given: Path) -> Origin:
    source, file = facts["source"], weights_file(given)
    inputs = {source["file"]: source["sha256"], **source["shards"]}
    settings = {key: source[key] for key in ("key", "settings", "assumed")}
    return Origin(f"released {kind}", settings, inputs, {name: file.with_name(name) for name in inputs})


def _read(kind: str, path: Path, given: Path | None) -> tuple[ResTok | HAR, dict[str, Any]]:
    """The model, and what metrics.json says of it: what the file says of itself, and what was assumed."""
    file = weights_file(path)
    tensors, taken = compat.read_weights(file)
    settings, source = compat.read_settings(kind, file, given)
    try:
        settings, assumed = COMPLETE[kind](tensors, settings)
        model = LOAD[kind](tensors, settings)
    except compat.ReleasedWeightsError as error:
        raise compat.ReleasedWeightsError(f"{file}: {error}") from None
    facts = {"step": None, "parameters": sum(p.numel() for p in model.parameters()),
             "source": {"file": file.name, "sha256": sha256_file(file), "key": taken, "settings": source and source.name,
                        "shards": {shard: sha256_file(file.with_name(shard)) for shard in sorted(compat.shards(file))},
                        "assumed": assumed}, "torch": torch.__version__}
    facts |= {"sampling_steps": len(model.config.groups)} if kind == "generator" else {"checkpoint": None}
    return model, facts


def to_release(tokenizer: Path, generator: Path | None, out: Path) -> None:
    """Write `out`/tokenizer.safetensors and `out`/generator.safetensors under the authors' names and in their shapes, each
    with their configuration beside it (.json), from our folders (None: no generator).

    Raises ReleasedWeightsError for a model that their code cannot express, WeightsError, FileError as `from_release` does.
    """
    _require_replaceable(out, [tokenizer, generator], THEIRS)
    if generator:
        pair(tokenizer, generator)
    models = {"tokenizer": load_tokenizer(tokenizer)} | ({"generator": load_generator(generator)} if generator else {})
    with atomic_folder(out) as folder:
        for kind, model in models.items():
            write_tensors(folder / f"{kind}.safetensors", compat.released_tensors(model))
            write_json(folder / f"{kind}.json", SETTINGS[kind](model.config))


def _require_replaceable(out: Path, inputs: list[Path | None], written: set[Path]) -> None:
    """`out` holds nothing but what is `written` there, relative to it, and no input even under such a name."""
    held = [real(path) for path in inputs if path]
    require_free(out, [], lambda path: path.relative_to(out) in written and real(path) not in held)
