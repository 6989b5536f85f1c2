"""What can be measured: images from files, and images straight from the models, of which none touches a disk."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8

from restok import config
from restok.config.load import canonical_json
from restok.data.images import ROUNDED, TRUNCATED, ImageSource, open_images
from restok.data.pairing import in_order_of
from restok.distributed import device
from restok.errors import RestokError
from restok.files import sha256_file
from restok.files.artifact import digest_of
from restok.files.npz import NpzArray, npz_names
from restok.files.tensors import arrays_sha256
from restok.metrics.frechet import Gaussian
from restok.metrics.published import CACHE, published_gaussians, resized_otherwise
from restok.stages.images import balanced_labels, reconstruction
from restok.stages.sampler import Sampler, guided
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
    tokenizer: config.Tokenizer | None = None       # of the codes; None where there are no codes
    published: dict[str, Gaussian] = field(default_factory=dict)   # of a reference: 'pooled', 'spatial'
    paths: dict[str, Path | None] = field(default_factory=dict)    # where its inputs lie, of those that are files

    @property
    def name(self) -> str:
        return self.facts["name"]

    @property
    def n(self) -> int:
        return self.facts["n"]

    def with_published(self, published: dict[str, Gaussian]) -> "Subject":
        """With these in the place of what its images say, which makes it another one; {}: with what they say."""
        facts = {key: value for key, value in self.facts.items() if key != "published"}
        if published:
            facts["published"] = arrays_sha256({f"{part}.{name}": getattr(gaussian, name).numpy()
                                                for part, gaussian in published.items() for name in ("mean", "covariance")})
        return replace(self, facts=facts, published=published)


class MeasureError(RestokError):
    """Images that cannot be measured, or do not belong together; the message names them and the remedy."""


def images_of(source: ImageSource, path: Path | None = None) -> Subject:
    """Images from a file or a folder at `path`."""
    return Subject(_facts_of(source, source.labels), source.labels, lambda *wanted: starmap(Batch, source.batches(*wanted)),
                   paths={"images": path})


def reference_of(path: Path, crop: int | None, workers: int) -> Subject:
    """Images to measure against, as `open_images` reads them; of an npz or a .pt with the statistics published in it, which may
    be all that it holds."""
    if path.suffix not in (".npz", CACHE):
        return images_of(open_images(path, crop, workers), path)
    names, published = npz_names(path) if path.suffix == ".npz" else (), published_gaussians(path)
    if "arr_0" in names:
        images = images_of(open_images(path, crop, workers), path)
        return images.with_published(published) if published else images
    if "feats" in names:
        raise MeasureError(f"{path}: features, as clean-fid keeps them for KID; name its file of mu and sigma, without _kid")
    if not published:
        raise MeasureError(f"{path}: has neither arr_0 (images) nor mu and sigma (statistics), only {', '.join(names)}")
    facts, caution = _facts(path.name, sha256_file(path), 0, None, "unknown", None), resized_otherwise(path, names)
    return Subject(facts | ({"caution": caution} if caution else {}), None, lambda *_: iter(()), published=published,
                   paths={"images": path})


def reconstructions_of(source: ImageSource, originals: ImageSource, path: Path, tokenizer: config.Tokenizer | None) -> Subject:
    """Reconstructions at `path`, image by image with their originals (`in_order_of`); codes where an npz of a known tokenizer
    holds them."""
    source = in_order_of(source, originals)
    if source.n != originals.n or source.size != originals.size:
        raise MeasureError(f"{source.name}: {source.n} images of {source.size}, but {originals.name} has {originals.n} of "
                           f"{originals.size}; reconstructions and originals go image by image")
    if not _same_classes(source.labels, originals.labels):
        raise MeasureError(f"{source.name}: its labels are not those of {originals.name}, so the two are not in one order; "
                           "make the reconstructions again in the order of their originals")
    codes = _codes(path, source.n, tokenizer) if path.suffix == ".npz" and tokenizer else None

    def batches(size, start, stop):
        for (first, images), (_, targets) in zip(source.batches(size, start, stop), originals.batches(size, start, stop),
                                                 strict=True):
            theirs = None if codes is None else torch.from_numpy(codes.read(first, first + len(images)).astype(np.int64))
            yield Batch(first, images, targets, theirs)

    labels = source.labels if originals.labels is None else originals.labels
    return Subject(_facts_of(source, labels, originals), labels, batches, True, tokenizer if codes else None,
                   paths={"images": path})


def _same_classes(ours: Int[np.ndarray, " n"] | None, theirs: Int[np.ndarray, " n"] | None) -> bool:
    """Whether both put the same images together, by whatever numbers, as far as is known."""
    if ours is None or theirs is None:
        return True
    pairs = len(np.unique(np.stack([ours, theirs]), axis=1).T)
    return pairs == len(np.unique(ours)) == len(np.unique(theirs))


def _codes(path: Path, n: int, tokenizer: config.Tokenizer) -> NpzArray | None:
    if "codes" not in npz_names(path):
        return None
    codes = NpzArray(path, "codes")
    if codes.dtype.kind not in "iu" or codes.shape != (n, tokenizer.latents):
        raise MeasureError(f"{path}: codes are {codes.dtype} {codes.shape}, expected integers, {n} images by "
                           f"{tokenizer.latents} tokens; name the parameters of their tokenizer, or leave them out")
    return codes


def reconstructed(tokenizer: Path, originals: ImageSource, batch_size: int, path: Path | None = None) -> Subject:
    """What a tokenizer makes of every original, `batch_size` at a time, rounded to 8 bits. `path`: of the originals."""
    model = load_tokenizer(tokenizer).to(device())
    if set(originals.size) != {model.config.image_size}:
        raise MeasureError(f"{originals.name}: images of {'x'.join(map(str, originals.size))}, but {tokenizer} takes "
                           f"{model.config.image_size}; name a folder, of which centre crops are taken, or images of that size")

    def batches(size, start, stop):
        for first, images in originals.batches(size, start, stop):
            pictures, codes = reconstruction(model, images, batch_size)
            yield Batch(first, pictures, images, codes)

    made_by = {"tokenizer": sha256_file(tokenizer / "model.safetensors"), "originals": originals.digest}
    facts = _facts_of(originals, originals.labels, originals) | {
        "name": f"reconstructions by {tokenizer.as_posix()}", "digest": digest_of(made_by), "rounding": ROUNDED,
        "inputs": made_by}
    return Subject(facts, originals.labels, batches, True, model.config, paths={"tokenizer": tokenizer, "originals": path})


def sampled(sampler: Sampler, params: config.Params, guidance: config.Guidance, per_class: int, seed: int,
            path: Path | None = None) -> Subject:
    """`per_class` samples of every class, each drawn from (seed, its number) alone, as it is asked for. `path`: of the file
    that the guidance was read from."""
    labels = balanced_labels(sampler.generator.config.classes, per_class)
    side = sampler.tokenizer.config.image_size

    made_by = {"models": sampler.digests, "guidance": guidance.model_dump(), "sampling": canonical_json(params, "sampling"),
               "per_class": per_class, "seed": seed}
    rounding = ROUNDED if params.sampling.rounding == "round" else TRUNCATED
    facts = _facts(f"samples by {sampler.name}", digest_of(made_by), len(labels), (side, side), rounding, labels)
    settings = {"guidance": guidance.model_dump(mode="json"), **json.loads(canonical_json(params, "sampling")),
                "per_class": per_class, "seed": seed}
    return Subject(facts | {"inputs": sampler.digests | guided(guidance), "settings": settings}, labels,
                   lambda *wanted: starmap(Batch, sampler.batches(guidance, labels, seed, *wanted)),
                   paths=sampler.paths | {"guidance": path})


def _facts_of(source: ImageSource, labels: Int[np.ndarray, " n"] | None, originals: ImageSource | None = None) -> dict:
    return _facts(source.name, source.digest, source.n, source.size, source.rounding, labels, originals)


def _facts(name: str, digest: str, n: int, size: tuple[int, int] | None, rounding: str, labels: Int[np.ndarray, " n"] | None,
           originals: ImageSource | None = None) -> dict:
    """`in_order`: whether images are sorted by class, of which there is more than one."""
    in_order = labels is not None and bool((np.diff(labels) >= 0).all() and labels[0] < labels[-1])
    return {"name": name, "digest": digest, "n": n, "size": size and list(size), "rounding": rounding,
            "originals": originals and {"name": originals.name, "digest": originals.digest}, "in_order": in_order}
