"""The order of a split: whatever files its images came in, and however many jobs packed them, it is that of their names."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute as pc
from jaxtyping import Int, UInt8

from restok.data.pack import Piece
from restok.data.reading import DataError
from restok.data.table import INDEX, KEPT, packed, shard_name


class Index(NamedTuple):
    """What the index of a split says of its images, in their order."""

    labels: Int[np.ndarray, " n"]
    digests: UInt8[np.ndarray, "n 32"]   # sha256 of the encoded bytes

    @property
    def digest(self) -> str:
        """A sha256 over label and sha256 of each image: the same whatever source they came from."""
        entries = np.concatenate([self.labels.astype("<i8")[:, None].view(np.uint8), self.digests], axis=1)
        return hashlib.sha256(entries.tobytes()).hexdigest()

    def shared(self, other: "Index") -> int:
        """How many different images are in both, to the byte."""
        return len(np.intersect1d(*(np.ascontiguousarray(each.digests).view("V32") for each in (self, other))))


def write_index(folder: Path, name: str, pieces: Sequence[Piece], in_order: bool) -> Index:
    """Write the index of the packed files in `folder`.

    name: of the split, for messages; in_order: whether the files follow the order already. Raises DataError for two images of
    one name.
    """
    table = _columns(folder, pieces)
    if not len(table):
        raise DataError(f"{name}: has no image of the classes that are taken; add some, or take others (data.classes)")
    rows = np.arange(len(table)) if in_order else _by_name(table, name, pieces)
    labels = table.column("label").to_numpy()[rows]
    np.save(folder / INDEX, np.stack([rows, labels]))
    digests = np.frombuffer(table.column("sha256").combine_chunks().buffers()[1], np.uint8).reshape(-1, 32)[rows]
    return Index(labels, digests)


def _columns(folder: Path, pieces: Sequence[Piece]) -> pyarrow.Table:
    """All but the images, which stay in their files."""
    tables = []
    for piece in pieces:
        path = folder / shard_name(piece.number)
        try:
            table = packed(path).select(KEPT)
        except (OSError, ValueError) as error:           # pyarrow's
            raise DataError(f"{path}: damaged ({error}); make this part again") from None
        if len(table) != piece.images:
            raise DataError(f"{path}: {len(table)} images, but {piece.images} were packed; make this part again")
        tables.append(table)
    return pyarrow.concat_tables(tables)


def _by_name(table: pyarrow.Table, name: str, pieces: Sequence[Piece]) -> Int[np.ndarray, " n"]:
    """The rows by label and, within a class, by the files' own names up to the dot that ends them, as a folder orders them."""
    own = pc.binary_join_element_wise(pc.replace_substring_regex(table.column("name"), "^.*/", ""), "", ".")
    table = table.append_column("own", own)
    rows = pc.sort_indices(table, [("label", "ascending"), ("own", "ascending")]).to_numpy().astype(np.int64)
    ordered = table.select(["label", "own"]).take(rows)
    same = np.ones(max(0, len(rows) - 1), bool)
    for column in ("label", "own"):
        values = ordered.column(column).combine_chunks()
        same &= pc.equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    if same.any():
        first, second = sorted(rows[same.argmax():][:2].tolist())
        raise DataError(f"{name}: two images are named {table.column('name')[first]}: one in {_file(pieces, first)}, one in "
                        f"{_file(pieces, second)}; leave one of them out, or give it a name of its own")
    return rows


def _file(pieces: Sequence[Piece], row: int) -> str:
    """The file of the source that a row came from."""
    for file, count in (each for piece in pieces for each in piece.files):
        if row < count:
            return file
        row -= count
    raise IndexError(row)
