"""Pieces of a source, checked image by image and written as one file each."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from restok.config.base import Count
from restok.data.classes import CLASSES
from restok.data.decoding import Decoder, inspect
from restok.data.reading import DataError, text_of
from restok.data.sources.base import Found, Source
from restok.data.table import Row, shard_name, write_rows
from restok.data.threads import map_ahead
from restok.files.loading import Known
from restok.progress import track

AT_MOST = 0.01                           # of a split's images, skipped or odd; more means that the set, not an image, is broken
log = logging.getLogger("restok")


class Piece(Known):
    """What is known of a piece once it is packed: all that the whole split's manifest and index need beside the file itself."""

    number: Count
    facts: str                           # sha256 of what the source said of it before it was read (`Source.facts`)
    found: Count                         # images that the source had
    images: Count                        # of these, packed
    bytes: Count                         # of the packed file
    sha256: str
    files: tuple[tuple[str, Count], ...]             # files of the source, in order, and images packed of each
    seen: dict[int, set[str]]            # what the images of each label say of their class
    skipped: dict[str, str]              # by the names of images that are not read: why
    odd: dict[str, tuple[str, ...]]      # names of images that are read as pillow reads them, by what is odd


class _Looked(NamedTuple):
    """An image that was looked at."""

    piece: int
    found: Found
    row: Row | None = None               # None: not read, or of a class that is not taken
    odd: str | None = None
    error: DataError | None = None


def pack(source: Source, numbers: Sequence[int], folder: Path, classes: Sequence[str] | None, decoder: Decoder,
         workers: int) -> list[Piece]:
    """Write these pieces into a new folder, less the images that are not read. classes: those that are taken, in the order of
    their numbers; None: all, as the source numbers them.

    Raises DataError for a source that is not as it should be, and where more than 1 % of the split are skipped or odd.
    """
    taken = {name: label for label, name in enumerate(classes)} if classes is not None else None

    def look(at: tuple[int, Found]) -> _Looked:
        if at[1].label >= CLASSES:
            raise DataError(f"{at[1].place}: label {at[1].label}; classes are numbered from 0 on, without gaps")
        label = at[1].label if taken is None else _number(source, at[1], taken)
        return _Looked(*at) if label is None else _look(*at, label, decoder)

    folder.mkdir()
    if not numbers:                      # of a split of which a part has nothing
        return []
    facts = dict(zip(numbers, listing(source, numbers, workers), strict=True))
    found = ((number, image) for number in numbers for image in source.read(number))
    looked = track(map_ahead(look, found, workers), f"reading {source.name}", _expected(source, numbers), "images")
    pieces = []
    for number, images in groupby(looked, lambda image: image.piece):
        pieces.append(_packed(source, number, images, folder, facts[number]))
        if source.count is not None:
            require_few(source.name, source.count, pieces)
    return pieces


def listing(source: Source, numbers: Iterable[int], workers: int) -> Iterator[str]:
    """A sha256 of each piece, by which one that did not change is known before it is read."""
    def of(number: int) -> str:
        digest = hashlib.sha256()
        for fact in source.facts(number):
            digest.update(fact)
        return digest.hexdigest()

    return map_ahead(of, numbers, workers)


def require_few(name: str, count: int, pieces: Sequence[Piece]) -> None:
    """Raises DataError where more than 1 % of a split's `count` images are skipped, or odd."""
    skipped = {image: why for piece in pieces for image, why in piece.skipped.items()}
    odd = {image: kind for piece in pieces for kind, images in piece.odd.items() for image in images}
    for what, images, remedy in (("not read", skipped, ""), ("odd", odd, "; save them as plain RGB, as they are to look")):
        if len(images) > AT_MOST * count:
            *_, (last, why) = images.items()
            raise DataError(f"{name}: more than {AT_MOST:.0%} of its {count} images are {what}, among them "
                            f"{', '.join([*images][:5])}; the last one: {name}/{last}: {why}{remedy}")


def _number(source: Source, found: Found, taken: Mapping[str, int]) -> int | None:
    """What an image's label becomes, None where its class is not taken."""
    if found.kind in taken:
        return taken[found.kind]
    if source.classes is not None and found.label < len(source.classes):
        return taken.get(source.classes[found.label])
    if found.kind is None:
        raise DataError(f"{found.place}: says no more of its class than the number {found.label}, so data.classes cannot "
                        "choose among them; set it to null, or prepare a folder")
    return None


def _look(piece: int, found: Found, label: int, decoder: Decoder) -> _Looked:
    try:
        data = found.read()
        odd = inspect(data, found.place, decoder)
    except DataError as error:
        return _Looked(piece, found, error=error)
    return _Looked(piece, found, Row(data, label, text_of(found.name), hashlib.sha256(data).digest()), odd)


def _expected(source: Source, numbers: Sequence[int]) -> int | None:
    return sum(source.counts[number] for number in numbers) if source.counts is not None else None


def _packed(source: Source, number: int, images: Iterable[_Looked], folder: Path, facts: str) -> Piece:
    """One piece, written, and what is known of it."""
    files, seen, skipped, odd, found = {}, {}, {}, {}, 0

    def rows() -> Iterator[Row]:
        nonlocal found
        for _, image, row, oddity, error in images:
            found += 1
            kinds, name = seen.setdefault(image.label, set()), text_of(image.name)
            if image.kind is not None:
                kinds.add(image.kind)
            if error is not None:
                log.warning("skipped: %s", error)
                skipped[name] = str(error).removeprefix(f"{image.place}: ")
            if oddity is not None:
                odd.setdefault(oddity, []).append(name)
            files[image.file] = files.get(image.file, 0) + (row is not None)
            if row is not None:
                yield row

    path = folder / shard_name(number)
    written, sha256 = write_rows(path, rows())
    if source.counts is not None and found != source.counts[number]:
        raise DataError(f"{source.name}: {found} images in {', '.join(files)}, but {source.promise} promises "
                        f"{source.counts[number]}; copy the files again")
    return Piece(number=number, facts=facts, found=found, images=written, bytes=path.stat().st_size, sha256=sha256,
                 files=tuple(files.items()), seen=seen, skipped=skipped,
                 odd={kind: tuple(names) for kind, names in sorted(odd.items())})
