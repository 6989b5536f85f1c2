"""Raw images, checked once and packed into one random-access table a split."""

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, permutations
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from restok import config
from restok.config.base import Positive
from restok.data.reading import DataError, image_names, opened, require_file, require_suffix
from restok.data.threads import map_ahead
from restok.experiments.records import Known, load_model
from restok.files import read_json, require_no_pipe
from restok.files.artifact import MANIFEST, Origin
from restok.files.run import make
from restok.progress import track

SPLITS = ("train", "validation")
SKIPPED_AT_MOST = 0.01                   # of a split's files; more means that the folder, not a file, is broken
BATCH, SHARD = 2 ** 24, 30               # bytes of images held and written at once; of these batches, how many a file (500 MB)
Row = tuple[bytes, int]                  # an encoded image, its label
log = logging.getLogger("restok")


class Split:
    """A prepared split, memory-mapped from `folder`: `split[i]` is (RGB image of pillow, label).

    classes: names by label; labels: int64, one an image; digest: the manifest's sha256 over images and labels.
    """

    def __init__(self, folder: Path, classes: Sequence[str], digest: str):
        import pyarrow

        self.folder, self.classes, self.digest = folder, list(classes), digest
        paths = sorted(folder.glob("*.arrow"))
        for path in paths:
            require_no_pipe(path)
        shards = [pyarrow.memory_map(str(path)) for path in paths]
        table = pyarrow.concat_tables(pyarrow.ipc.open_stream(shard).read_all() for shard in shards).flatten()
        labels = table["label"].cast(pyarrow.int64())            # or ArrowInvalid, of halves
        self.labels = np.array(labels.to_pylist(), dtype=np.int64)               # np.asarray(labels) would import pandas
        self._images = table.column(0)   # `image`, or `image.bytes` as earlier versions wrote it

    def __reduce__(self) -> tuple:       # for workers that are not forked: pickled, the table would be a copy of all images
        return Split, (self.folder, self.classes, self.digest)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | np.integer) -> tuple[Image.Image, int]:
        """Raises DataError where the image is damaged."""
        data = self._images[int(index)].as_py()
        try:
            return Image.open(io.BytesIO(data)).convert("RGB"), int(self.labels[index])
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


def open_split(folder: str | Path, split: str) -> Split:
    """The split 'train' or 'validation' that `prepare` wrote. Raises DataError where it is missing or incomplete."""
    folder = Path(folder)
    remedy = f"run `restok prepare` to write {folder} again"
    try:
        facts = getattr(read_manifest(folder).splits, split)
        table = Split(folder / split, facts.classes, facts.sha256)
    except (OSError, KeyError, TypeError, ValueError) as error:   # pyarrow's errors are ValueErrors and OSErrors
        raise DataError(f"{folder / split}: not a prepared split ({type(error).__name__}: {error}); {remedy}") from None
    if len(table) != facts.count:
        raise DataError(f"{folder / split}: {len(table)} images, but the manifest counts {facts.count}; {remedy}")
    if table.labels.min() < 0 or table.labels.max() >= len(facts.classes):
        raise DataError(f"{folder / split}: labels from {table.labels.min()} to {table.labels.max()}, but the manifest names "
                        f"{len(facts.classes)} classes; {remedy}")
    return table


def prepare(data: config.Data, image_size: int, folder: str | Path, run: Path | None = None) -> dict:
    """Write `folder`/train, `folder`/validation (tables of `image`, encoded bytes as found, and `label`) and manifest.json.

    image_size: side of the embedded digits, which are drawn at that size; files of an image folder are packed as they are.
    Returns the manifest, which names what was skipped: files that look like images and are not read rightly (`opened`). The
    folder appears whole or not at all. Raises DataError for folders that do not hold two splits of the same classes, and where
    more than 1 % of a split's files would be skipped. In the folder `run`, where it is named, they are kept.
    """
    sources = _sources(data, image_size)

    def write(partial: Path) -> dict:
        splits = {split: _pack(source, partial / split, data.workers) for split, source in sources.items()}
        return {"source": data.source, "splits": splits}

    listed = {split: _listing(source, data.workers) for split, source in sources.items()}
    make(Path(folder), Origin("data", {"source": data.source}, listed), run, write)
    return read_json(Path(folder) / MANIFEST)


class _Source(NamedTuple):
    """A split's images before they are packed: files below the folder `name`, or of the digits the encoded bytes themselves."""

    name: str
    classes: list[str]
    files: list[Path | bytes]
    labels: list[int]


def _listing(source: _Source, workers: int) -> str:
    """A sha256 by which a source that did not change is known: over names, sizes and times, or over the digits themselves."""
    def about(file: Path | bytes) -> bytes:
        if isinstance(file, bytes):
            return file
        facts = file.lstat()
        return b"%s %d %d\n" % (os.fsencode(file.relative_to(source.name)), facts.st_size, facts.st_mtime_ns)

    digest = hashlib.sha256()
    for line in map_ahead(about, source.files, workers):
        digest.update(line)
    return digest.hexdigest()


def _pack(source: _Source, folder: Path, workers: int) -> dict:
    """Stream a source into a table at `folder`, less the files that are not read rightly; the split's part of the manifest."""
    digest, counts, skipped = hashlib.sha256(), Counter(), []

    def rows() -> Iterator[Row]:
        contents = track(map_ahead(_read, source.files, workers), f"reading {source.name}", len(source.files))
        for file, label, data in zip(source.files, source.labels, contents, strict=True):
            if isinstance(data, DataError):
                log.warning("skipped: %s", data)
                skipped.append(file)
                if len(skipped) > SKIPPED_AT_MOST * len(source.files):
                    raise DataError(f"{source.name}: more than {SKIPPED_AT_MOST:.0%} of its {len(source.files)} files are not "
                                    f"read, among them {', '.join(map(str, skipped[:5]))}; the last one: {data}")
            else:
                digest.update(np.array([label, len(data)], dtype="<i8").tobytes() + data)
                counts[label] += 1
                yield data, label

    _write_table(folder, rows())
    for label, name in enumerate(source.classes):
        if not counts[label]:
            raise DataError(f"{source.name}: class {name!r} has no readable image; add some")
    if skipped:
        log.warning("%s: %d of %d files skipped", source.name, len(skipped), len(source.files))
    return {"count": counts.total(), "classes": source.classes,
            "images_per_class": {name: counts[label] for label, name in enumerate(source.classes)},
            "skipped": [_text(path.relative_to(source.name)) for path in skipped], "sha256": digest.hexdigest()}


def _text(path: Path) -> str:
    """A path as JSON can hold it, whatever its bytes are."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


def _write_table(folder: Path, rows: Iterator[Row]) -> None:
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


def _read(file: Path | bytes) -> bytes | DataError:
    if isinstance(file, bytes):
        return file
    try:
        require_suffix(file)
        with opened(file) as (image, data):
            image.convert("RGB")         # which decodes it
        return data
    except DataError as error:
        return error


def _sources(data: config.Data, image_size: int) -> dict[str, _Source]:
    if data.source == "digits":
        return _digits(image_size)
    folders = {split: Path(data.path, name) for split, name in zip(SPLITS, (data.train, data.validation), strict=True)}
    for split, folder in folders.items():
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; put the images there as CLASS/FILE, or set data.path and data.{split}")
        if not class_names(folder):
            raise DataError(f"{folder}: holds no class folders; put the images there as CLASS/FILE")
    for here, there in permutations(folders.values()):
        if alone := set(class_names(here)).difference(class_names(there)):
            raise DataError(f"{there}: has no folder for {len(alone)} class(es) of {here}, such as {min(alone)!r}; both splits "
                            "need the same classes")
    return {split: _image_folder(folder) for split, folder in folders.items()}


def class_names(folder: Path) -> list[str]:
    """The classes of the images that lie in a folder as CLASS/FILE, in the order of their numbers."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in names:
        if name != _text(Path(name)):
            raise DataError(f"{folder}: the class folder {_text(Path(name))} has a name that is not UTF-8; rename it")
    return names


def _image_folder(folder: Path) -> _Source:
    """Images below their class folders, however deep, as torchvision's ImageFolder takes them."""
    classes, names = class_names(folder), image_names(folder)
    for name in names:
        if len(name.parts) == 1:
            require_file(folder / name)
            raise DataError(f"{folder / name}: lies beside the class folders; move it into one, or elsewhere")
    if empty := set(classes).difference(name.parts[0] for name in names):
        raise DataError(f"{folder / min(empty)}: an empty class folder; add its images, or remove it from both splits")
    number = {name: label for label, name in enumerate(classes)}
    return _Source(str(folder), classes, [folder / name for name in names], [number[name.parts[0]] for name in names])


def _digits(size: int) -> dict[str, _Source]:
    """scikit-learn's 1,797 digits of 8x8 pixels, enlarged; one fixed split, a fifth of each class for validation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0)
    return {split: _Source(f"digits/{split}", [str(name) for name in digits.target_names],
                           [_digit_png(digits.images[i], size) for i in sorted(part)],
                           [int(digits.target[i]) for i in sorted(part)])
            for split, part in zip(SPLITS, parts, strict=True)}


def _digit_png(digit: np.ndarray, size: int) -> bytes:
    """A digit of grey levels 0..16 as an RGB PNG of size x size."""
    grey = Image.fromarray((digit * (255 / 16)).astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(grey).clip(0, 255).round().astype(np.uint8)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
