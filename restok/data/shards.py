"""Images to be measured that lie in tar shards or in parquet files, by the readers of `restok prepare`."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from restok.data.classes import CLASSES
from restok.data.reading import DataError, Encoded, image_names
from restok.data.sources.base import Listed
from restok.data.sources.parquet import Rows, parquet_images, require_all_files
from restok.data.sources.tars import read_at, require_all_shards, tar_images
from restok.distributed import from_first


class Kind(NamedTuple):
    """How shards are read."""

    listed: Callable[[Path], Iterable[Listed]]
    require_whole: Callable[[Path, Mapping[str, int]], object]
    reader: Callable[[], Callable[..., bytes]]          # of the images of a set, by where they are


KINDS = {".tar": Kind(tar_images, require_all_shards, lambda: read_at),
         ".parquet": Kind(parquet_images, require_all_files, Rows)}


class Shards(NamedTuple):
    """The images of shards, in order."""

    images: list[Encoded]
    names: list[Path] | None             # as the shards name them; None where an image has no name
    entries: list[str]                   # for the digest: each one's name, below its label where it has one
    labels: Int[np.ndarray, " n"] | None


def shards_in(folder: Path) -> list[Path]:
    """The tar shards, or the parquet files, of one set that lie in a folder, in the order of their names; none in a folder of
    images. Raises DataError for shards beside images or beside other shards."""
    names = sorted(entry.name for entry in os.scandir(folder)
                   if not entry.name.startswith(".") and os.path.splitext(entry.name)[1] in KINDS)
    sets = {re.sub(r"\d+", "", name): name for name in names}
    beside = [*sets.values(), *image_names(folder)[:1]] if names else []
    if len(beside) > 1:
        raise DataError(f"{folder}: holds {beside[0]} and {beside[1]}; name the file that is meant, or put those of one set "
                        "into a folder of their own")
    return [folder / name for name in names]


def open_shards(path: Path, files: Sequence[Path]) -> Shards:
    """The images of the shard `path`, or of all those in the folder `path`. Raises DataError, which names the shard and the
    image, for what is none, for shards that are missing, and for classes of some images alone."""
    kind = KINDS[files[0].suffix]
    listed = from_first(lambda: _listed(kind, path, files))
    if not listed:
        raise DataError(f"{path}: holds no images; write or copy it again")
    labels, read = [image.label for image in listed], kind.reader()
    if None in labels and (told := next((image for image in listed if image.label is not None), None)):
        raise DataError(f"{listed[labels.index(None)].place} has no class, and {told.place} has; give all of them one, or none")
    if labels[0] is not None and max(labels) >= CLASSES:
        raise DataError(f"{listed[labels.index(max(labels))].place} has label {max(labels)}, expected the number of a class, "
                        f"below {CLASSES}; number them so, or leave the labels out")
    names = [Path(image.name) for image in listed]
    for image, name in zip(listed, names, strict=True):
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"{image.place}: a name that leads out of its folder; give it another")
    return Shards([Encoded(image.place, partial(read, *image.at)) for image in listed],
                  names if all(image.name for image in listed) else None,
                  [image.name if image.label is None else f"{image.label}/{image.name}" for image in listed],
                  None if labels[0] is None else np.array(labels, np.int64))


def _listed(kind: Kind, path: Path, files: Sequence[Path]) -> list[Listed]:
    listed = {file.name: list(kind.listed(file)) for file in files}
    if path.is_dir():
        kind.require_whole(path, {name: len(images) for name, images in listed.items()})
    return list(chain.from_iterable(listed.values()))
