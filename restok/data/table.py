"""Prepared images: files of encoded images that are mapped into memory, and one index a split that brings them into order."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow
from PIL import Image
from pydantic import Field

from restok.config.base import Count, Positive
from restok.data.decoding import Decoder, decode, require_decoder
from restok.data.reading import DataError
from restok.files import require_no_pipe
from restok.files.artifact import MANIFEST
from restok.files.loading import Known, load_model

BATCH = 2 ** 24                          # bytes of images held and written at once
INDEX = "index.npy"                      # int64, 2 x images: the row of each image over all files, and its label
KEPT = ("label", "name", "sha256")       # columns beside `image`


class Row(NamedTuple):
    """An image as it is packed."""

    image: bytes                         # encoded, as found
    label: int
    name: str
    sha256: bytes                        # of the encoded bytes


class PackedFile(Known):
    """One of a split's files, in their order: how many images, and how long."""

    images: Count
    bytes: Count


class _SplitFacts(Known):
    """What the manifest says of a split."""

    count: Positive
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    images_per_class: dict[str, Positive]
    skipped: dict[str, str]
    files: Annotated[tuple[PackedFile, ...], Field(min_length=1)]
    sha256: str


class _Splits(Known):
    train: _SplitFacts
    validation: _SplitFacts


class Manifest(Known):
    """What `prepare` writes beside its tables."""

    source: str
    splits: _Splits


class Split:
    """A prepared split in `folder`, of which a file is mapped into memory when one of its images is first asked for: `split[i]`
    is (RGB image, as `decode` makes it by `decoder`; label).

    classes: names by label; labels: int64, one an image; digest: the manifest's sha256 over labels and images in their order.
    """

    def __init__(self, folder: Path, facts: _SplitFacts, decoder: Decoder = "pillow"):
        self.folder, self.classes, self.digest, self.decoder = folder, list(facts.classes), facts.sha256, decoder
        self._ends = np.cumsum([file.images for file in facts.files])
        self._columns: dict[int, pyarrow.ChunkedArray] = {}
        for number, file in enumerate(facts.files):
            path = folder / shard_name(number)
            require_no_pipe(path)
            if (size := path.stat().st_size) != file.bytes:
                raise ValueError(f"{path.name} has {size} bytes, not {file.bytes}")
        require_no_pipe(folder / INDEX)
        index = np.load(folder / INDEX)
        if (index.dtype, index.shape) != (np.int64, (2, facts.count)):
            raise ValueError(f"{INDEX} holds {index.dtype} {index.shape}, but the manifest counts {facts.count} images")
        self._rows, self.labels = index
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise ValueError(f"labels from {self.labels.min()} to {self.labels.max()}, but the manifest names "
                             f"{len(self.classes)} classes")
        if self._rows.min() < 0 or self._rows.max() >= self._ends[-1]:
            raise ValueError(f"{INDEX} has rows from {self._rows.min()} to {self._rows.max()}, of {self._ends[-1]} images")

    def __reduce__(self) -> tuple:       # for workers that are not forked: pickled, the index would be a copy
        return open_split, (self.folder.parent, self.folder.name, self.decoder)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | np.integer) -> tuple[Image.Image, int]:
        """Raises DataError where the image is damaged."""
        try:
            return decode(self._encoded(int(self._rows[index])), self.decoder), int(self.labels[index])
        except Exception as error:       # pillow's plugins raise a dozen kinds on broken files
            raise DataError(f"{self.folder}: image {index} is damaged ({type(error).__name__}: {error}); run `restok prepare` "
                            f"to write {self.folder.parent} again") from None

    def _encoded(self, row: int) -> bytes:
        number = int(np.searchsorted(self._ends, row, side="right"))
        if number not in self._columns:
            self._columns[number] = packed(self.folder / shard_name(number)).column("image")
        return self._columns[number][row - int(self._ends[number])].as_py()      # counted from the file's end


def read_manifest(folder: Path) -> Manifest:
    """Raises FileError, which names the file and the key, where it is missing or not what `prepare` writes."""
    return load_model(folder / MANIFEST, Manifest)


def open_split(folder: str | Path, split: str, decoder: Decoder = "pillow") -> Split:
    """The split 'train' or 'validation' that `prepare` wrote. Raises DataError where it is missing or incomplete, and where the
    decoder is not installed."""
    folder = Path(folder)
    require_decoder(decoder)
    try:
        return Split(folder / split, getattr(read_manifest(folder).splits, split), decoder)
    except (OSError, KeyError, TypeError, ValueError, EOFError) as error:
        raise DataError(f"{folder / split}: not a prepared split ({type(error).__name__}: {error}); run `restok prepare` to "
                        f"write {folder} again") from None


def shard_name(number: int) -> str:
    return f"{number:05}.arrow"


def packed(path: Path) -> pyarrow.Table:
    """The table of a packed file, mapped into memory. Raises pyarrow's errors, which are ValueErrors and OSErrors."""
    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()


class _Hashed(io.FileIO):
    """A file that is hashed while it is written: read again for that, it might come from the disk."""

    def __init__(self, path: Path):
        super().__init__(path, "w")
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes | pyarrow.Buffer) -> int:
        self.sha256.update(data)
        left = memoryview(data)
        while left:                      # at the end of a disk a part is written first, and only the next call is refused
            left = left[super().write(left):]
        return len(data)


def write_rows(path: Path, rows: Iterator[Row]) -> tuple[int, str]:
    """An Arrow stream of record batches of about BATCH bytes. Returns the number of rows, and the sha256 of the file."""
    kinds = (pyarrow.binary(), pyarrow.int64(), pyarrow.string(), pyarrow.binary(32))
    schema, seen, count = pyarrow.schema(zip(Row._fields, kinds, strict=True)), 0, 0

    def batch(row: Row) -> int:
        nonlocal seen
        seen += len(row.image)
        return seen // BATCH

    with _Hashed(path) as file, pyarrow.ipc.new_stream(file, schema) as writer:
        for _, together in groupby(rows, batch):
            columns: Sequence[tuple] = tuple(zip(*together, strict=True))
            writer.write(pyarrow.record_batch(list(columns), schema))
            count += len(columns[0])
    return count, file.sha256.hexdigest()
