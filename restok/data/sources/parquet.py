"""Parquet files as ILSVRC/imagenet-1k: a column `image` of encoded bytes and their path, a column `label` of class numbers."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import pyarrow
from pyarrow.parquet import ParquetFile

from restok import config
from restok.config.text import ConfigError, read_text, read_yaml
from restok.data.classes import WORDNET, require_known, stem, wordnet_id
from restok.data.reading import DataError
from restok.data.sources.base import Found, Listed, Source, cut, facts_of_file, shards
from restok.files import require_no_pipe

ROWS = 64                                # read at a time
HELD = 8 * ROWS                          # images of a file that stay in memory, for threads that ask for those in turn
BUFFER = 2 ** 20                         # bytes read at once
NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.parquet")


class _Group(NamedTuple):
    """A row group of a file."""

    file: str
    number: int
    rows: int
    size: int


def parquet(data: config.Data, image_size: int, chosen: tuple[str, ...] | None) -> dict[str, Source]:
    """The files below data.path that data.train and data.validation name, by patterns or folders."""
    folder, splits = shards(data, "parquet")
    return {split: _source(folder, split, names, chosen, data) for split, names in splits.items()}


def _source(folder: Path, split: str, names: list[str], chosen: tuple[str, ...] | None, data: config.Data) -> Source:
    groups, classes, counts = [], None, {}
    for name in names:
        with _opened(folder / name) as file:
            _require_columns(folder / name, file)
            counts[name] = file.metadata.num_rows
            groups += [_Group(name, i, about.num_rows, about.total_byte_size)
                       for i in range(file.num_row_groups) if (about := file.metadata.row_group(i)).num_rows]
            classes = _class_label(folder / name, file, classes)
    if not groups:
        raise DataError(f"{folder / names[0]}: holds no rows; copy it again, or leave it out")
    own_choice = "{" in getattr(data, split)             # some files, named one by one
    promise = "the footer" if own_choice else require_all_files(folder, counts)
    if chosen and classes and not all(map(WORDNET.fullmatch, chosen)):
        require_known(chosen, classes, data.classes, f"{folder}/{split}")
    pieces = cut([group.size for group in groups])

    def read(piece: int) -> Iterator[Found]:
        for group in (groups[i] for i in pieces[piece]):
            yield from _found(folder, group, classes)

    def facts(piece: int) -> Iterator[bytes]:
        for group in (groups[i] for i in pieces[piece]):
            yield b"%d %d " % (group.number, group.rows) + facts_of_file(group.file, folder / group.file)

    rows = tuple(sum(groups[i].rows for i in piece) for piece in pieces)
    return Source(f"{folder}/{split}", classes, False, len(pieces), rows, promise, sum(group.size for group in groups), facts,
                  read)


def _opened(path: Path, by_page: bool = False) -> ParquetFile:
    """With `by_page`, of a row group as large as its file no more than some pages are held."""
    require_no_pipe(path)
    try:
        return ParquetFile(path, buffer_size=BUFFER if by_page else 0, pre_buffer=not by_page)
    except (OSError, ValueError) as error:               # pyarrow's are ValueErrors and OSErrors
        raise DataError(f"{path}: not a whole parquet file ({error}); copy it again") from None


def _require_columns(path: Path, file: ParquetFile) -> None:
    schema = file.schema_arrow
    image, label = ([field.type for field in schema if field.name == name] for name in ("image", "label"))
    parts = {field.name: str(field.type) for field in image[0]} if image and pyarrow.types.is_struct(image[0]) else {}
    fits = parts.get("bytes") in ("binary", "large_binary") and parts.get("path") in ("string", "large_string", "null")
    if not fits or (len(image), len(label)) != (1, 1) or not pyarrow.types.is_integer(label[0]):
        found = ", ".join(f"{field.name} {field.type}" for field in schema)
        raise DataError(f"{path}: columns {found}; expected image struct<bytes: binary, path: string> and label int64, as "
                        "ILSVRC/imagenet-1k has them: rename or convert them")


def _class_label(path: Path, file: ParquetFile, before: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names of a ClassLabel, by their numbers, which Hugging Face's datasets write beside the schema."""
    metadata = file.schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return before
    if len(set(names)) < len(names):
        raise DataError(f"{path}: names two classes alike; give each a name of its own")
    if before is not None and list(before) != names:
        raise DataError(f"{path}: other class names than in the files before it; copy all files of one data set")
    return tuple(names)


def require_all_files(folder: Path, counts: Mapping[str, int]) -> str:
    """Who says how many images there are in files of so many rows. Raises DataError where a file of those numbered
    ...-of-00294 is not there, and where README.md beside the files counts other images."""
    for name in counts:
        if match := NUMBERED.fullmatch(name):
            first, _, count = match.groups()
            for other in (f"{first}-{i:05}-of-{count}.parquet" for i in range(int(count))):
                if other not in counts:
                    raise DataError(f"{folder / other}: is missing, of the {int(count)} files that {Path(name).name} counts; "
                                    "copy it there")
    split, rows = Path(next(iter(counts))).name.partition("-")[0], sum(counts.values())
    for readme in (folder / "README.md", folder.parent / "README.md"):
        if (said := _said(readme, split)) is not None:
            if said != rows:
                raise DataError(f"{folder}: {rows} images of {split!r}, but {readme} says {said}; copy the files again")
            return "README.md"
    return "the footer"


def _said(readme: Path, split: str) -> int | None:
    """The number of a split's images in the head of a data set's card; None where it says nothing."""
    if not readme.is_file():
        return None
    try:
        about = read_yaml(read_text(readme).split("---")[1])["dataset_info"]
        about = about[0] if isinstance(about, list) else about
        return next(int(each["num_examples"]) for each in about["splits"] if each["name"] == split)
    except (ConfigError, LookupError, TypeError, ValueError, StopIteration):
        return None


def _found(folder: Path, group: _Group, classes: tuple[str, ...] | None) -> Iterator[Found]:
    """The images of a row group. Raises DataError for a label that names no class, and for a row without bytes."""
    with _opened(folder / group.file) as file:
        for row, about, label in _rows(folder / group.file, file, group.number, ["image.bytes", "image.path", "label"]):
            yield _image(folder, group, row, label, about, classes)


def _rows(path: Path, file: ParquetFile, group: int, columns: list[str]) -> Iterator[tuple[int, Any, int | None]]:
    """Number, image and label of each row of a row group, of the columns that are asked for."""
    row = 0
    try:
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
            images, labels = (batch.column(name) if name in batch.schema.names else pyarrow.nulls(len(batch))
                              for name in ("image", "label"))
            for image, label in zip(images, labels, strict=True):
                yield row, image.as_py(), label.as_py()
                row += 1
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy it again") from None


def _image(folder: Path, group: _Group, row: int, label: int | None, about: dict | None,
           classes: tuple[str, ...] | None) -> Found:
    place = f"{folder / group.file}: row {row} of row group {group.number}"
    if label is None or label < 0:
        raise DataError(f"{place} has no class (label {label}); leave it out, or name a split that has classes")
    if classes is not None and label >= len(classes):
        raise DataError(f"{place} has label {label}, but there are {len(classes)} classes; copy the file again")
    if about is None or about["bytes"] is None:
        raise DataError(f"{place} holds no bytes, but a path alone; take files that hold the images")
    path = about["path"] or f"{os.path.splitext(Path(group.file).name)[0]}_{group.number:05}_{row:05}"
    kind = wordnet_id(path) or (classes[label] if classes is not None else None)
    return Found(f"{label if kind is None else kind}/{stem(path)}", f"{folder / group.file}: {path}", group.file, label, kind,
                 partial(bytes, about["bytes"]))


def parquet_images(path: Path) -> Iterator[Listed]:
    """The images of a file, which need no classes, in order. Raises DataError for columns that hold no images, for labels that
    are no numbers of classes, and for what is no whole file."""
    with _opened(path, by_page=True) as file:
        schema = {field.name: field.type for field in file.schema_arrow}
        _require_images(path, file, schema)
        parts = {field.name: str(field.type) for field in schema["image"]} if pyarrow.types.is_struct(schema["image"]) else {}
        columns = ["image.path"] if parts.get("path") in ("string", "large_string") else []
        columns += ["label"] if "label" in schema else []
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            told = _rows(path, file, group, columns) if columns else ((row, None, None) for row in range(count))
            for row, about, label in told:
                name = Path(about["path"] or "").name if about else ""
                place = f"{path}: {name or f'row {row} of row group {group}'}"
                if label is not None and label < 0:
                    raise DataError(f"{place} has label {label}; classes are numbered from 0 on: leave out the column, or name "
                                    "a split that has classes")
                yield Listed(name, place, label, (path, group, row))


def _require_images(path: Path, file: ParquetFile, schema: dict[str, pyarrow.DataType]) -> None:
    image, label = schema.get("image"), schema.get("label", pyarrow.int64())
    if image is not None and pyarrow.types.is_struct(image) and "bytes" in {field.name for field in image}:
        image = image.field("bytes").type
    named = [field.name for field in file.schema_arrow]
    fits = image is not None and (pyarrow.types.is_binary(image) or pyarrow.types.is_large_binary(image))
    if not fits or not pyarrow.types.is_integer(label) or max(named.count("image"), named.count("label")) > 1:
        found = ", ".join(f"{field.name} {field.type}" for field in file.schema_arrow)
        raise DataError(f"{path}: columns {found}; expected image binary, or struct<bytes: binary, path: string>, of encoded "
                        "images, and label int64 where they have classes: rename or convert them")


class Rows:
    """The bytes of images in files by file, row group and row: quickest in order, by whatever threads. Raises DataError for a
    row without bytes."""

    def __init__(self):
        self._lock, self._file, self._group, self._last, self._coming, self._held = Lock(), None, None, -1, iter(()), {}

    def __call__(self, path: Path, group: int, row: int) -> bytes:
        wanted = path, group, row
        with self._lock:
            if wanted not in self._held:
                self._read(path, group, row)
            data = self._held[wanted]
        if data is None:
            raise DataError(f"{path}: row {row} of row group {group} holds no bytes, but a path alone; take files that hold "
                            "the images")
        return data

    def _read(self, path: Path, group: int, row: int) -> None:
        """On to a row, from the one before where that was asked for last; else, or after an error, from the group's first."""
        before, self._group = self._group, None
        if before is None or before[0] != path:
            self._file = _opened(path, by_page=True)
        if before != (path, group) or row <= self._last:
            self._last, self._coming = -1, _rows(path, self._file, group, ["image"])
        while self._last < row:
            self._last, image, _ = next(self._coming, (row, None, None))         # no more of a file that was changed meanwhile
            self._held[path, group, self._last] = image["bytes"] if isinstance(image, dict) else image
            if len(self._held) > HELD:
                del self._held[next(iter(self._held))]
        self._group = path, group
