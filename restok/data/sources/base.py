"""What every source gives: pieces, each of which becomes one packed file, and the images of each, one after another."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import NamedTuple

from restok import config
from restok.data.reading import DataError
from restok.files import require_no_pipe

SPLITS = ("train", "validation")
PIECE = 10 ** 9                          # bytes of encoded images, about, that are packed into one file


class Found(NamedTuple):
    """An image of a source, before it is read."""

    name: str                            # CLASS/STEM, or in a folder CLASS/.../FILE: tells it from others of the split
    place: str                           # for messages: the file, and within a shard the image
    file: str                            # of the source, which holds it
    label: int                           # as the source has it
    kind: str | None                     # its class, by WordNet id or name; None where there is a number alone
    read: Callable[[], bytes]            # its encoded bytes; raises DataError


class Listed(NamedTuple):
    """An image of a shard, to be measured, and where its bytes are, for whoever asks for them later."""

    name: str                            # the path that the shard gives it, with its suffix; empty where it gives none
    place: str                           # for messages: the file, and within it the image
    label: int | None                    # None where nothing tells its class
    at: tuple                            # file and place in it


@dataclass(frozen=True)
class Source:
    """The images of a split. Pieces are cut by what the source holds alone: whoever reads some of them need not look at the
    others."""

    name: str                            # 'data/imagenet/train'
    classes: tuple[str, ...] | None      # their names by label; None: the images tell them, or nobody
    in_order: bool                       # whether the images come in the order of their names
    pieces: int
    counts: tuple[int, ...] | None       # of images, by piece, where the source tells them before it is read
    promise: str | None                  # where it promises them: '_info.json'; None where they are only what was found
    size: int                            # bytes of images, about
    facts: Callable[[int], Iterable[bytes]]          # by which a piece that did not change is known
    read: Callable[[int], Iterator[Found]]           # a piece's images. Raises DataError

    @property
    def count(self) -> int | None:
        """Images of the split; None where only reading tells."""
        return sum(self.counts) if self.counts is not None else None


def cut(sizes: Sequence[int], most: int | None = None) -> list[range]:
    """Pieces of consecutive things that are together no larger than `most`, but for single ones."""
    most, pieces, start, total = most or PIECE, [], 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > most:
            pieces.append(range(start, i))
            start, total = i, 0
        total += size
    return [*pieces, range(start, len(sizes))] if sizes else []


def alike(count: int, mean: float) -> list[range]:
    """Pieces of as many images each, of a mean size in bytes: a power of two."""
    each = 1 << max(0, round(PIECE / max(1.0, mean)).bit_length() - 1)
    return [range(start, min(start + each, count)) for start in range(0, count, each)]


def facts_of_file(name: str, file: str | Path) -> bytes:
    """Name, size and time of a file, without opening it; of a link itself where it leads nowhere."""
    try:
        facts = os.stat(file)
    except OSError:
        facts = os.lstat(file)
    return b"%s %d %d\n" % (os.fsencode(name), facts.st_size, facts.st_mtime_ns)


def shards(data: config.Data, suffix: str) -> tuple[Path, dict[str, list[str]]]:
    """The folder of a data set in shards, and those of each split, relative to it."""
    folder = home(data.path)
    return folder, {split: _shards(folder, getattr(data, split), suffix, split) for split in SPLITS}


def _shards(folder: Path, pattern: str, suffix: str, key: str) -> list[str]:
    """The files that a pattern with {0000..1023}, {a,b} or *, or the name of a folder, means below `folder`, in order. Raises
    DataError for none, and for one of a list in braces that is not there."""
    remedy = f"set data.path and data.{key} (such as '{key}-*.{suffix}')"
    names = []
    for each in _braces(pattern):
        if any(mark in each for mark in "*?["):
            names += _matching(folder, each)
        elif (folder / each).is_dir():
            names += _matching(folder, f"{each}/*.{suffix}")
        else:
            names.append(each)
    if not names:
        raise DataError(f"{folder / pattern}: no such files; {remedy}")
    if twice := {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ():
        raise DataError(f"{folder / min(twice)}: is named twice by data.{key}; name it once")
    for name in names:
        if not (folder / name).is_file():
            require_no_pipe(folder / name)
            raise DataError(f"{folder / name}: no such file; copy it there, or {remedy}")
    return names


def _matching(folder: Path, pattern: str) -> list[str]:
    """The files that a pattern means, below `folder` or absolute, in the order of their parts, but for hidden ones."""
    return [path.as_posix() for path in sorted(map(Path, glob(pattern, root_dir=folder, recursive=True)))]


def _braces(pattern: str) -> list[str]:
    """A shell's {0000..1023} and {a,b}, one beside another."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not match:
        return [pattern]
    first, last, listed = match.groups()
    words = listed.split(",") if listed else [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [match.string[:match.start()] + word + rest for word in words for rest in _braces(pattern[match.end():])]


def home(path: str) -> Path:
    """The folder of a data set: of the hub's cache (datasets--OWNER--NAME) the snapshot that 'main' means."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; put the images there, or set data.path")
    snapshots = sorted((folder / "snapshots").glob("*/"))
    main = folder / "refs" / "main"
    if main.is_file():
        return folder / "snapshots" / main.read_text("utf-8").strip()
    if len(snapshots) > 1:
        raise DataError(f"{folder}: holds {len(snapshots)} snapshots and no refs/main; set data.path to one of them")
    return snapshots[0] if snapshots else folder

