"""A folder of images, CLASS/.../FILE, as torchvision's ImageFolder takes it."""

import os
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from pathlib import Path

from restok import config
from restok.data.classes import require_known
from restok.data.reading import DataError, image_names, read_bytes, require_file, require_suffix, text_of
from restok.data.sources.base import SPLITS, Found, Source, alike, facts_of_file

SAMPLED = 100                            # files whose sizes are looked at, to cut pieces of about one size


def imagefolder(data: config.Data, image_size: int, chosen: tuple[str, ...] | None) -> dict[str, Source]:
    """PATH/TRAIN/CLASS/... and PATH/VALIDATION/CLASS/..., in the order of their names."""
    folders = {split: Path(data.path, name) for split, name in zip(SPLITS, (data.train, data.validation), strict=True)}
    for split, folder in folders.items():
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; put the images there as CLASS/FILE, or set data.path and data.{split}")
        if not class_names(folder):
            raise DataError(f"{folder}: holds no class folders; put the images there as CLASS/FILE")
        require_known(chosen, class_names(folder), data.classes, str(folder))
    for here, there in permutations(folders.values()):
        alone = set(class_names(here)).difference(class_names(there))
        if not chosen and alone:
            raise DataError(f"{there}: has no folder for {len(alone)} class(es) of {here}, such as {min(alone)!r}; both splits "
                            "need the same classes")
    return {split: _source(folder, chosen) for split, folder in folders.items()}


def class_names(folder: Path) -> list[str]:
    """The classes of the images that lie in a folder as CLASS/FILE, in the order of their numbers."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        if name != text_of(name):
            raise DataError(f"{folder}: the class folder {text_of(name)} has a name that is not UTF-8; rename it")
    return names


def _source(folder: Path, chosen: tuple[str, ...] | None) -> Source:
    classes = chosen or tuple(class_names(folder))
    names = _names(folder, classes, all_of_them=chosen is None)
    sizes = [os.lstat(folder / names[i * len(names) // SAMPLED]).st_size for i in range(SAMPLED)]
    pieces, number = alike(len(names), sum(sizes) / SAMPLED), {name: label for label, name in enumerate(classes)}

    def read(piece: int) -> Iterator[Found]:
        for name in (names[i] for i in pieces[piece]):
            kind = name.partition("/")[0]
            yield Found(name, f"{folder}/{name}", name, number[kind], kind, partial(_read, folder / name))

    return Source(str(folder), classes, True, len(pieces), tuple(map(len, pieces)), None,
                  sum(sizes) * len(names) // SAMPLED,
                  lambda piece: (facts_of_file(names[i], folder / names[i]) for i in pieces[piece]), read)


def _names(folder: Path, classes: tuple[str, ...], all_of_them: bool) -> list[str]:
    """The images below the class folders, however deep."""
    wanted, empty, names = set(classes), set(classes), []
    for name in image_names(folder):
        kind, slash, _ = name.partition("/")
        if not slash:
            require_file(folder / name)
            raise DataError(f"{folder / name}: lies beside the class folders; move it into one, or elsewhere")
        if kind in wanted:
            names.append(name)
            empty.discard(kind)
    if empty:
        remedy = "or remove it from both splits" if all_of_them else "or from the list of classes"
        raise DataError(f"{folder / min(empty)}: an empty class folder; add its images, {remedy}")
    return names


def _read(file: Path) -> bytes:
    require_suffix(file)
    return read_bytes(file)
