"""What can be measured: images from files, and images straight from the models, of which none touches a disk."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8

from restok import config
from restok.config.load import canonical_json
from restok.data.images import ROUNDED, TRUNCATED, ImageSource, open_images
from restok.distributed import device
from restok.errors import RestokError
from restok.files import NpzArray, npz_names, read_json, sha256_file
from restok.stages.images import Sampler, balanced_labels, reconstruction
from restok.stages.search import read_guidance
from restok.weights import load_tokenizer

Images = UInt8[np.ndarray, "b h w c"]


class Batch(NamedTuple):
    start: int
    images: Images
    originals: Images | None = None
    codes: Int[torch.Tensor, "b t"] | None = None


@dataclass(frozen=True)
class Subject:
    """Images to measure, with the originals that they reconstruct, where they do.

    `batches(size, start, stop)` yields images start .. stop, `size` at a time counted from 0.
    """

    facts: dict                    # name, digest, n, size, rounding, originals, in_order
    labels: Int[np.ndarray, " n"] | None
    batches: Callable[[int, int, int], Iterator[Batch]]
    paired: bool = False
    levels: tuple[int, ...] = ()   # of the codes; none where there are no codes
    codebook_size: int = 0

    @property
    def n(self) -> int:
        return self.facts["n"]

    @property
    def classes(self) -> int:
        return 0 if self.labels is None else int(self.labels.max()) + 1


class SubjectError(RestokError):
    """Images that do not belong together; the message names them and the remedy."""


def choose(params: config.Params | None, samples: list[Path], originals: Path | None, tokenizer: Path | None,
           generator: Path | None, guidance: Path | None, seed: int | None, crop: int | None, workers: int,
           protocol: config.Evaluation) -> tuple[Subject | list[Path], int | None]:
    """What a call of `restok evaluate` means to measure, a subject or statistics files of one, and the seed it is drawn from.

    Raises SubjectError where the options name nothing, or two things at once.
    """
    if bool(samples) == bool(tokenizer):
        raise SubjectError("name either --samples, or --tokenizer to measure straight from the models")
    if samples and (generator or guidance):
        raise SubjectError("--generator and --guidance draw samples with --tokenizer; leave them out, or --samples")
    if samples and all(path.suffix == ".safetensors" for path in samples):
        if originals:
            raise SubjectError("statistics files know what they were measured beside; leave --originals out")
        return samples, seed
    if len(samples) > 1:
        raise SubjectError("several --samples: only statistics files (.safetensors) of one set's shards add")
    if tokenizer and not generator:
        crop = read_json(tokenizer / "config.json")["image_size"]
    source = open_images(originals, crop, workers) if originals else None
    if samples:
        prepared = (samples[0] / "manifest.json").is_file()      # other samples are measured as they are, or refused
        given = open_images(samples[0], crop if prepared else None, workers)
        if source:
            return reconstructions_of(given, source, samples[0], params.tokenizer if params else None), seed
        return images_of(given), seed
    if generator is None:
        if source is None or guidance is not None:
            raise SubjectError("--tokenizer alone measures reconstructions: name their --originals; samples take --generator "
                               "and --guidance too")
        return reconstructed(tokenizer, source, protocol.batch_size), None
    if params is None or source is not None:
        raise SubjectError("samples from a generator take --params, and have no --originals")
    setting = read_guidance(guidance) if guidance else params.sampling.guidance
    if setting is None:
        raise SubjectError("samples from a generator take --guidance, or parameters whose sampling.guidance is not null")
    seed = params.seed if seed is None else seed
    sampler = Sampler(tokenizer, generator)
    return sampled(sampler, params, setting, params.evaluation.samples_per_class, seed), seed


def images_of(source: ImageSource) -> Subject:
    """Images from a file or a folder."""
    def batches(size, start, stop):
        for first, images in source.batches(size, start, stop):
            yield Batch(first, images)

    return Subject(_facts(source, source.labels), source.labels, batches)


def reconstructions_of(source: ImageSource, originals: ImageSource, path: Path, tokenizer: config.Tokenizer | None) -> Subject:
    """Reconstructions at `path`, image by image with their originals; codes where an npz of a known tokenizer holds them."""
    if source.n != originals.n or source.size != originals.size:
        raise SubjectError(f"{source.name}: {source.n} images of {source.size}, but {originals.name} has {originals.n} of "
                           f"{originals.size}; reconstructions and originals go image by image")
    codes = NpzArray(path, "codes") if path.suffix == ".npz" and "codes" in npz_names(path) and tokenizer else None

    def batches(size, start, stop):
        for (first, images), (_, targets) in zip(source.batches(size, start, stop), originals.batches(size, start, stop),
                                                 strict=True):
            found = None if codes is None else torch.from_numpy(codes.read(first, first + len(images)).astype(np.int64))
            yield Batch(first, images, targets, found)

    labels = source.labels if originals.labels is None else originals.labels
    facts = _facts(source, labels) | {"originals": {"name": originals.name, "digest": originals.digest}}
    return Subject(facts, labels, batches, True, *_codebook(tokenizer if codes else None))


def reconstructed(tokenizer: Path, originals: ImageSource, batch_size: int) -> Subject:
    """What a tokenizer makes of every original, `batch_size` at a time, rounded to 8 bits."""
    model = load_tokenizer(tokenizer).to(device())
    if set(originals.size) != {model.config.image_size}:
        raise SubjectError(f"{originals.name}: images of {'x'.join(map(str, originals.size))}, but {tokenizer} takes "
                           f"{model.config.image_size}; name a folder, of which centre crops are taken, or images of that size")

    def batches(size, start, stop):
        for first, images in originals.batches(size, start, stop):
            pictures, codes = reconstruction(model, images, batch_size)
            yield Batch(first, pictures, images, codes)

    made_by = {"tokenizer": sha256_file(tokenizer / "model.safetensors"), "originals": originals.digest}
    facts = _facts(originals, originals.labels) | {
        "name": f"reconstructions by {tokenizer.as_posix()}", "digest": _digest(made_by),
        "rounding": ROUNDED, "originals": {"name": originals.name, "digest": originals.digest}}
    return Subject(facts, originals.labels, batches, True, *_codebook(model.config))


def sampled(sampler: Sampler, params: config.Params, guidance: config.Guidance, per_class: int, seed: int) -> Subject:
    """`per_class` samples of every class, each drawn from (seed, its number) alone, as it is asked for."""
    labels = balanced_labels(sampler.generator.config.classes, per_class)
    side = sampler.tokenizer.config.image_size

    def batches(size, start, stop):
        for first in range(start, stop, size):
            wanted = labels[first:min(first + size, stop)]
            yield Batch(first, sampler(params.sampling, guidance, wanted, seed, first))

    made_by = {"models": sampler.digests, "guidance": guidance.model_dump(), "sampling": canonical_json(params, "sampling"),
               "per_class": per_class, "seed": seed}
    facts = {"name": f"samples by {sampler.name}", "digest": _digest(made_by), "n": len(labels),
             "size": [side, side], "rounding": ROUNDED if params.sampling.rounding == "round" else TRUNCATED, "originals": None,
             "in_order": _in_order(labels)}
    return Subject(facts, labels, batches)


def _facts(source: ImageSource, labels: Int[np.ndarray, " n"] | None) -> dict:
    return {"name": source.name, "digest": source.digest, "n": source.n, "size": list(source.size), "rounding": source.rounding,
            "originals": None, "in_order": labels is not None and _in_order(labels)}


def _in_order(labels: Int[np.ndarray, " n"]) -> bool:
    """Whether images are sorted by class, of which there is more than one."""
    return bool((np.diff(labels) >= 0).all() and labels[0] < labels[-1])


def _codebook(tokenizer: config.Tokenizer | None) -> tuple[tuple[int, ...], int]:
    return (tokenizer.levels, tokenizer.codebook_size) if tokenizer else ((), 0)


def _digest(value: dict) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
