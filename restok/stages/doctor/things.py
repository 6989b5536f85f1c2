"""What a run needs and jobs do not make: images, classes, weights, a reference. None of it is changed."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from restok import config
from restok.data.classes import UNKNOWN, class_list, ordered
from restok.data.decoding import require_decoder
from restok.data.reading import DataError
from restok.data.sources import Source, open_sources
from restok.data.table import read_manifest
from restok.errors import RestokError
from restok.experiments.demand import finished_weights, wanted
from restok.experiments.places import Tree
from restok.experiments.work import IMAGENET, Counts
from restok.files import require_no_pipe
from restok.files.npz import NpzArray, npz_names
from restok.files.outputs import kind_of
from restok.metrics.fdr6 import NAME, TRAINING
from restok.metrics.published import CACHE, published_gaussians, resized_otherwise
from restok.networks.saved import require_network
from restok.stages.fetch import held

ADM = {"VIRTUAL_imagenet256_labeled.npz": "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/"
                                          "256/VIRTUAL_imagenet256_labeled.npz"}
CLASSES = 1000                           # of ImageNet
PEEKED = 500                             # images whose labels are looked at
BESIDE = 3 * 1024                        # bytes in a tar beside an image: three heads, its class, what else is said of it


class Finding(NamedTuple):
    """Something that was looked for."""

    what: str
    state: Literal["ok", "fault", "not known"]
    says: str                       # of a fault, with the remedy


def images(params: config.Params, tree: Tree) -> tuple[list[Finding], Counts | None]:
    """Both splits, counted without reading their pixels, their classes and these' order. The counts are None where nobody knows
    them; where there are no images, those of ImageNet for parameters with its number of classes."""
    try:
        return _found(params)
    except (RestokError, OSError) as error:
        try:
            return _prepared(params, tree.path("data"))
        except (RestokError, OSError):
            return [Finding("images", "fault", str(error))], IMAGENET if params.generator.classes == CLASSES else None


def _found(params: config.Params) -> tuple[list[Finding], Counts]:
    require_decoder(params.data.decoder)
    splits = open_sources(params.data, params.tokenizer.image_size)
    findings, counts, labels = [], [], 0
    for split, source in splits.items():
        seen, mean = _peek(source)
        counts.append(round(source.size / mean) if source.count is None else source.count)
        about = "about, since nothing beside the shards says how many" if source.count is None else "counted"
        if params.data.classes and not source.in_order:
            about += f"; of these the classes of {params.data.classes} are taken"
        findings.append(Finding(f"{split} images", "ok", f"{counts[-1]:,} in {source.name} ({about})"))
        _, order = ordered(source.name, seen, source.classes)
        findings.append(Finding(f"{split} class order", "not known" if order == UNKNOWN else "ok", order))
        labels = max(labels, 1 + max(seen, default=-1))
    chosen = class_list(params.data.classes) or splits["train"].classes
    findings.append(_classes(params, len(chosen) if chosen else None, labels))
    return findings, Counts(*counts, sum(source.size for source in splits.values()), known=True)


def _peek(source: Source) -> tuple[dict[int, set[str]], float]:
    """What the source's first images, or its own list, say of each label's class; and the mean bytes of these images."""
    seen, sizes = {}, []
    for found in islice(source.read(0), PEEKED):
        seen.setdefault(found.label, set()).update([found.kind] if found.kind else [])
        sizes.append(len(found.read()) + BESIDE if source.count is None else 1)
    if source.in_order and source.classes:               # the first images are of one class
        seen = {label: {name} for label, name in enumerate(source.classes)}
    return seen, sum(sizes) / max(1, len(sizes)) or 1.0


def _prepared(params: config.Params, folder: Path) -> tuple[list[Finding], Counts]:
    """What `restok prepare` made of images that are not there any more."""
    splits = read_manifest(folder).splits
    every = {"train": splits.train, "validation": splits.validation}
    findings = [Finding(f"{name} images", "ok", f"{split.count:,}, prepared before, in {folder / name}")
                for name, split in every.items()]
    size = sum(file.bytes for split in every.values() for file in split.files)
    classes = _classes(params, len(splits.train.classes), 0)
    return [*findings, classes], Counts(splits.train.count, splits.validation.count, size, known=True)


def _classes(params: config.Params, classes: int | None, least: int) -> Finding:
    """`least` is what the labels of some images tell, where the number of classes is not known."""
    asked = params.generator.classes
    if classes is None and least <= asked:
        return Finding("classes", "not known", f"only reading the images tells their number; generator.classes is {asked}")
    if (classes or least) != asked:
        number = classes or f"{least} or more"
        return Finding("classes", "fault", f"generator.classes: {asked}, but the images have {number} classes; set it to their "
                       "number, or name other images in data.path")
    return Finding("classes", "ok", f"{classes}, as generator.classes says")


def weights(params: config.Params, tree: Tree) -> Iterator[Finding]:
    """Pretrained networks, and the finished models that rows name."""
    for network in map(held, wanted(params, tree.sheet)):
        says = network.fault or f"{network.bytes / 1e6:,.0f} MB, verified by its {network.verified}: {network.file}"
        yield Finding(f"weights of {network.network}", "fault" if network.fault else "ok", says)
    for folder in finished_weights(tree.sheet):
        try:
            require_network(folder, "model", "restok convert")
            yield Finding("finished weights", "ok", str(folder))
        except RestokError as error:
            yield Finding("finished weights", "fault", f"{error}, or leave out the row of experiments.tsv that names it")


def references(evaluation: config.Evaluation) -> Iterator[Finding]:
    """What samples are held against, and whether FDr6, where it is asked for, can be had from it."""
    path = evaluation.reference
    yield reference(path)
    if "fdr6" in evaluation.also and (path is None or Path(path).suffix != ".safetensors"):
        yield Finding(NAME, "not known", f"not measured against {path or 'the validation images'}: evaluation.reference must "
                      f"name what `restok statistics` made of ImageNet's {TRAINING:,} training images")


def reference(path: str | None) -> Finding:
    """What samples are held against."""
    if path is None:
        return Finding("reference", "ok", "the validation images")
    place = Path(path)
    try:
        require_no_pipe(place)
        if not place.exists():
            where = f"download {ADM[place.name]}" if place.name in ADM else "put it"
            raise DataError(f"{path}: no such file; {where} there, or name another in evaluation.reference (null: the "
                            "validation images)")
        if place.suffix == CACHE or (place.suffix == ".npz" and "mu" in npz_names(place)):
            resized_otherwise(place, ())
            published_gaussians(place)
        elif place.suffix == ".npz":
            NpzArray(place, "arr_0")
        if place.suffix == ".safetensors" and kind_of(place) != "statistics":
            raise DataError(f"{path}: no statistics; name a file that `restok statistics` wrote in evaluation.reference")
    except (RestokError, OSError) as error:
        return Finding("reference", "fault", str(error))
    return Finding("reference", "ok", path)

