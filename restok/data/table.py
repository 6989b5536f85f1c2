"""Prepared images: one random-access table a split, written once and mapped into memory."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from restok.config.base import Positive
from restok.data.decoding import Decoder, decode, require_decoder
from restok.data.reading import DataError
from restok.experiments.loading import Known, load_model
from restok.files import require_no_pipe
from restok.files.artifact import MANIFEST

BATCH, SHARD = 2 ** 24, 30               # bytes of images held and written at once; of these batches, how many a file (500 MB)
Row = tuple[bytes, int]                  # an encoded image, its label


class Split:
    """A prepared split, memory-mapped from `folder`: `split[i]` is (RGB image, as `decode` makes it by `decoder`; label).

    classes: names by label; labels: int64, one an image; digest: the manifest's sha256 over images and labels.
    """

    def __init__(self, folder: Path, classes: Sequence[str], digest: str, decoder: Decoder = "pillow"):
        import pyarrow

        self.folder, self.classes, self.digest, self.decoder = folder, list(classes), digest, decoder
        paths = sorted(folder.glob("*.arrow"))
        for path in paths:
            require_no_pipe(path)
        shards = [pyarrow.memory_map(str(path)) for path in paths]
        table = pyarrow.concat_tables(pyarrow.ipc.open_stream(shard).read_all() for shard in shards).flatten()
        labels = table["label"].cast(pyarrow.int64())            # or ArrowInvalid, of halves
        self.labels = np.array(labels.to_pylist(), dtype=np.int64)               # np.asarray(labels) would import pandas
        self._images = table.column(0)   # `image`, or `image.bytes` as earlier versions wrote it

    def __reduce__(self) -> tuple:       # for workers that are not forked: pickled, the table would be a copy of all images
        return Split, (self.folder, self.classes, self.digest, self.decoder)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | np.integer) -> tuple[Image.Image, int]:
        """Raises DataError where the image is damaged."""
        data = self._images[int(index)].as_py()
        try:
            return decode(data, self.decoder), int(self.labels[index])
        except Exception as error:       # pillow's plugins raise a dozen kinds on broken files
            raise DataError(f"{self.folder}: image {index} is damaged ({type(error).__name__}: {error}); run `restok prepare` "
                            f"to write {self.folder.parent} again") from None


class _SplitFacts(Known):
    """What the manifest says of a split."""

    count: Positive
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    images_per_class: dict[str, Positive]
    skipped: tuple[str, ...]
    sha256: str


class _Splits(Known):
    train: _SplitFacts
    validation: _SplitFacts


class Manifest(Known):
    """What `prepare` writes beside its tables."""

    source: str
    splits: _Splits


def read_manifest(folder: Path) -> Manifest:
    """Raises FileError, which names the file and the key, where it is missing or not what `prepare` writes."""
    return load_model(folder / MANIFEST, Manifest)


def open_split(folder: str | Path, split: str, decoder: Decoder = "pillow") -> Split:
    """The split 'train' or 'validation' that `prepare` wrote. Raises DataError where it is missing or incomplete, and where the
    decoder is not installed."""
    folder = Path(folder)
    require_decoder(decoder)
    remedy = f"run `restok prepare` to write {folder} again"
    try:
        facts = getattr(read_manifest(folder).splits, split)
        table = Split(folder / split, facts.classes, facts.sha256, decoder)
    except (OSError, KeyError, TypeError, ValueError) as error:   # pyarrow's errors are ValueErrors and OSErrors
        raise DataError(f"{folder / split}: not a prepared split ({type(error).__name__}: {error}); {remedy}") from None
    if len(table) != facts.count:
        raise DataError(f"{folder / split}: {len(table)} images, but the manifest counts {facts.count}; {remedy}")
    if table.labels.min() < 0 or table.labels.max() >= len(facts.classes):
        raise DataError(f"{folder / split}: labels from {table.labels.min()} to {table.labels.max()}, but the manifest names "
                        f"{len(facts.classes)} classes; {remedy}")
    return table


def write_table(folder: Path, rows: Iterator[Row]) -> None:
    """Arrow streams 00000.arrow, 00001.arrow, ..., of record batches of about BATCH bytes, which `Split` maps into memory."""
    import pyarrow

    schema, seen = pyarrow.schema({"image": pyarrow.binary(), "label": pyarrow.int64()}), 0

    def batch(row: Row) -> int:
        nonlocal seen
        seen += len(row[0])
        return seen // BATCH

    folder.mkdir()
    for shard, batches in groupby(groupby(rows, batch), lambda numbered: numbered[0] // SHARD):
        with pyarrow.OSFile(str(folder / f"{shard:05}.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
            for _, together in batches:
                writer.write(pyarrow.record_batch(list(zip(*together, strict=True)), schema))
