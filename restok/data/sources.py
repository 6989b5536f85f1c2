"""Raw images, checked once and packed into one random-access table a split."""

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from restok import config
from restok.data.reading import DataError, image_names, opened, require_file, require_suffix
from restok.data.table import Row, write_table
from restok.data.threads import map_ahead
from restok.files import read_json
from restok.files.artifact import MANIFEST, Origin
from restok.files.run import make
from restok.progress import track

SPLITS = ("train", "validation")
SKIPPED_AT_MOST = 0.01                   # of a split's files; more means that the folder, not a file, is broken
log = logging.getLogger("restok")


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

    write_table(folder, rows())
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
