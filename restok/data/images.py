"""Images to be measured, 8 bits as they are, read in batches from an npz of samples, a prepared split, files or shards of them.

Nothing is skipped and nothing resized unasked: the number of images and their pixels are part of what a distance means.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int, UInt8

from restok.data.classes import CLASSES
from restok.data.encoded import check_image, decode_image, of_one_size, pixels
from restok.data.reading import SUFFIXES, DataError, Encoded, image_names, looks_like_an_image, read_bytes, require_suffix
from restok.data.shards import KINDS, open_shards, shards_in
from restok.data.sources.folder import class_names
from restok.data.table import open_split, read_manifest
from restok.data.threads import map_ahead
from restok.data.transforms import Pixels, center_crop
from restok.distributed import from_first, gathered, own_share, shared_errors
from restok.errors import InputError
from restok.files import sha256_file
from restok.files.npz import NpzArray, npz_names
from restok.progress import track

STORED, ROUNDED, TRUNCATED = "8 bit, as stored", "8 bit, rounded", "8 bit, truncated"
LARGEST = 8192                           # pixels of a crop's side and of an npz's, at most
AHEAD = 2                                # batches read before they are asked for
A = TypeVar("A")
Read = Callable[[int, int], UInt8[np.ndarray, "b h w c"]]


@dataclass(frozen=True)
class ImageSource:
    """Images in a fixed order. Raises DataError or FileError while reading, which name the file."""

    name: str                            # for reports: 'samples.npz', 'folder samples', 'digits validation, centre crops of 16'
    digest: str                          # sha256 of the npz file, of images' names and bytes, or the prepared split's own
    n: int
    size: tuple[int, int]                # h, w
    labels: Int[np.ndarray, " n"] | None
    rounding: str                        # STORED, ROUNDED or TRUNCATED
    read: Read                           # images start, ..., stop - 1, at least one
    names: Sequence[Path] | None = None  # of the files, where each image is one; relative to their folder, or as a shard has it

    def batches(self, batch_size: int, start: int = 0,
                stop: int | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "b h w c"]]]:
        """(index of the first image, images), for images start, start + 1, ... before `stop` (None: all), read ahead in a
        thread of its own.

        Batches begin at multiples of `batch_size`, so that a run that resumes, or has a share of the images, sees the same
        ones. Raises ValueError where `start` is not such a multiple.
        """
        if batch_size < 1 or start < 0 or start % batch_size:
            raise InputError(f"start {start}: expected a multiple of the batch size, {batch_size}")
        stop = self.n if stop is None else min(stop, self.n)

        def images(first: int) -> tuple[int, UInt8[np.ndarray, "b h w c"]]:
            return first, self.read(first, min(first + batch_size, stop))

        yield from map_ahead(images, range(start, stop, batch_size), ahead=AHEAD)


def open_images(path: str | Path, crop: int | None = None, workers: int = 0, split: str = "validation") -> ImageSource:
    """The images at `path`, checked and hashed:

    - an npz file: arr_0 (n h w 3 uint8) as stored; labels from 'labels', or from 'arr_1' where that holds n integers;
    - a folder that `restok prepare` wrote: `split` as centre crops of `crop` x `crop`;
    - a folder of png, jpg, jpeg, webp and bmp files, as FILE or as CLASS/FILE, in the order of their names: as stored, all of
      one size, or as centre crops. Grey, palette and CMYK become RGB; EXIF orientation is left alone, as `prepare` does;
    - a webdataset tar, a parquet file with a column `image`, or a folder of those of one set: such images in the order of the
      shards; labels from .cls or .json, or from a column `label`.

    `workers` threads, at least one, decode. Raises DataError or FileError, which name the file and the remedy.
    """
    path = Path(path)
    _require_crop(crop)
    if path.is_file():
        if path.suffix in KINDS:
            return _shards(path, [path], path.name, crop, workers)
        if path.suffix != ".npz" and looks_like_an_image(path):
            raise DataError(f"{path}: a single image; put it into a folder, and name that, or name an npz file")
        return _npz(path, crop)
    if not path.is_dir():
        what = "no regular file" if path.exists() else "no such file or folder"
        raise DataError(f"{path}: {what}; name an npz, tar or parquet file, or a folder of images")
    if (path / "manifest.json").is_file():
        return _prepared(path, crop, workers, split)
    if files := from_first(lambda: shards_in(path)):
        return _shards(path, files, f"folder {path.resolve().name}", crop, workers)
    return _folder(path, crop, workers)


def open_files(files: Sequence[Path], crop: int | None = None, workers: int = 0) -> ImageSource:
    """Single image files in the order given, checked and hashed as those of a folder are."""
    _require_crop(crop)
    names = [Path(file.name) for file in files]
    return _encoded(_of_files(files), names, map(Path.as_posix, names), f"{len(files)} files", None, crop, workers)


def _require_crop(crop: int | None) -> None:
    if crop is not None and not 1 <= crop <= LARGEST:
        raise DataError(f"crop {crop}: expected a side of 1 to {LARGEST} pixels; name another with `--crop SIZE`")


def _npz(path: Path, crop: int | None) -> ImageSource:
    array = NpzArray(path, "arr_0")
    if array.dtype != np.uint8 or len(array.shape) != 4 or array.shape[3] != 3:
        raise DataError(f"{path}: arr_0 is {array.dtype} {array.shape}, expected uint8 (n, h, w, 3); clamp and round images to "
                        "8 bits and save them so (restok.data.transforms.to_uint8)")
    n, *size, _ = array.shape
    if not n:
        raise DataError(f"{path}: arr_0 holds no images; write the file again")
    if not 1 <= min(size) <= max(size) <= LARGEST:
        raise DataError(f"{path}: arr_0 holds images of {pixels(size)}, not of sides from 1 to {LARGEST}; write other images")
    if crop is not None and size != [crop, crop]:
        raise DataError(f"{path}: images of {pixels(size)}, but {crop} x {crop} were asked for; an npz is read as stored: "
                        "make its images again at that size, or name a folder of images, of which centre crops are taken")
    return ImageSource(path.name, from_first(lambda: sha256_file(path)), n, tuple(size), _labels(path, n), STORED, array.read)


def _labels(path: Path, n: int) -> Int[np.ndarray, " n"] | None:
    for name in ("labels", "arr_1"):
        if name in npz_names(path):
            array = NpzArray(path, name)
            if array.dtype.kind in "iu" and array.shape == (n,):
                labels = array.read(0, n)
                if labels.min() < 0 or labels.max() >= CLASSES:
                    raise DataError(f"{path}: labels from {labels.min()} to {labels.max()}, expected the numbers of classes, "
                                    f"from 0 to {CLASSES - 1} at most; number them so, or leave {name!r} out")
                return labels.astype(np.int64)
            if name == "labels":         # arr_1 may be anything
                raise DataError(f"{path}: labels are {array.dtype} {array.shape}, expected {n} integers, one an image; save "
                                "them so, or leave them out")
    return None


def _prepared(folder: Path, crop: int | None, workers: int, name: str) -> ImageSource:
    split = open_split(folder, name)
    if crop is None:
        raise DataError(f"{folder}: a prepared split is measured as centre crops; name their size with `--crop SIZE`")
    source = read_manifest(folder).source
    read = _Reader(lambda index: center_crop(split[index][0], crop), range(len(split)), workers)
    return ImageSource(f"{source} {name}, centre crops of {crop}", split.digest, len(split), (crop, crop), split.labels,
                       ROUNDED, read)


def _folder(folder: Path, crop: int | None, workers: int) -> ImageSource:
    names, what = from_first(lambda: _names(folder)), f"folder {folder.resolve().name}"
    images = _of_files([folder / name for name in names])
    return _encoded(images, names, map(Path.as_posix, names), what, _classes(folder, names), crop, workers)


def _shards(path: Path, files: Sequence[Path], what: str, crop: int | None, workers: int) -> ImageSource:
    shards = open_shards(path, files)
    return _encoded(shards.images, shards.names, shards.entries, what, shards.labels, crop, workers)


def _of_files(files: Iterable[Path]) -> list[Encoded]:
    return [Encoded(str(file), partial(read_bytes, file)) for file in files]


def _encoded(images: Sequence[Encoded], names: Sequence[Path] | None, entries: Iterable[str], what: str,
             labels: Int[np.ndarray, " n"] | None, crop: int | None, workers: int) -> ImageSource:
    """`entries`: what the digest takes beside each image's bytes."""
    with shared_errors():
        share = images[slice(*own_share().bounds(len(images)))]
        checked = track(map_ahead(check_image, share, workers), f"checking {what}", len(share), "images")
        checked = of_one_size(share, checked, crop)
    checked = of_one_size(images, chain.from_iterable(gathered(checked)), crop)
    digest, size = hashlib.sha256(), checked[0][0]
    for entry, (_, sha256) in zip(entries, checked, strict=True):
        digest.update(f"{sha256}  ".encode() + os.fsencode(entry) + b"\n")               # as `sha256sum` prints them
    rounding, read = STORED, _Reader(lambda image: decode_image(image, crop), images, workers)
    if crop is not None:
        what, size, rounding = f"{what}, centre crops of {crop}", (crop, crop), ROUNDED
    return ImageSource(what, digest.hexdigest(), len(images), size, labels, rounding, read, names)


def _names(folder: Path) -> list[Path]:
    """The image files in a folder, relative to it, in order: all as FILE, or all as CLASS/FILE."""
    names = [Path(name) for name in image_names(folder)]
    if not names:
        raise DataError(f"{folder}: holds no images; put them there as FILE or as CLASS/FILE ({', '.join(SUFFIXES)}), or in "
                        f"shards ({', '.join(KINDS)})")
    for name in names:
        require_suffix(folder / name)
        if len(name.parts) > 2 or len(name.parts) != len(names[0].parts):
            raise DataError(f"{folder}: holds {names[0]} and {name}; put all images there as FILE, or all as CLASS/FILE")
    return names


def _classes(folder: Path, names: list[Path]) -> Int[np.ndarray, " n"] | None:
    """The number of each file's class, in the order of the classes' names; None for a flat folder."""
    if len(names[0].parts) == 1:
        return None
    classes, labels = np.unique([name.parts[0] for name in names], return_inverse=True)
    if empty := set(class_names(folder)).difference(classes):
        raise DataError(f"{folder / min(empty)}: a class folder without images; add them, or remove it, for classes are "
                        "counted by folder")
    return labels.astype(np.int64)


class _Reader(NamedTuple):
    """Images that are each the view of an item, made in threads."""

    view: Callable[[A], Pixels]
    items: Sequence[A]
    workers: int

    def __call__(self, start: int, stop: int) -> UInt8[np.ndarray, "b h w c"]:
        return np.stack(list(map_ahead(self.view, self.items[start:stop], self.workers)))

    def taken(self, order: Sequence[int]) -> "_Reader":
        """The same images in another order."""
        return self._replace(items=[self.items[i] for i in order])
