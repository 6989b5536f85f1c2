"""A bad input: what is spoilt of a sound chain, the command that meets it, and what its one message must name."""

import json
import os
import re
import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

Spoil = Callable[[Path], None]           # changes the copy of the chain in a folder, whose files it replaces, never rewrites
DROP = object()


class Case(NamedTuple):
    """`words` are those after `restok`; `named` is a pattern of the message or, where the input is to be `read`, of what is
    said and of the files that are made."""

    name: str
    words: str
    named: str
    spoil: Spoil = lambda home: None
    read: bool = False


def both(*spoils: Spoil) -> Spoil:
    return lambda home: [spoil(home) for spoil in spoils] and None


def written(name: str, content: bytes | str) -> Spoil:
    """A file of this content, in the place of what was there."""
    def spoil(home: Path) -> None:
        path = _cleared(home / name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda home: written(name, change((home / name).read_bytes()))(home)


def text(name: str, old: str, new: str) -> Spoil:
    """The first `old` becomes `new`."""
    def change(data: bytes) -> bytes:
        assert old.encode() in data, (name, old)
        return data.replace(old.encode(), new.encode(), 1)

    return bytes_of(name, change)


def keys(name: str, changes: dict[str, Any]) -> Spoil:
    """Keys of a JSON file, by their paths such as 'a.0.b', have other values, or (DROP) are gone."""
    def change(data: bytes) -> bytes:
        tree = json.loads(data)
        for path, value in changes.items():
            *parents, leaf = [int(part) if part.isdecimal() else part for part in path.split(".")]
            node = reduce(lambda node, part: node[part], parents, tree)
            if value is DROP:
                del node[leaf]
            else:
                node[leaf] = value
        return json.dumps(tree).encode()

    return bytes_of(name, change)


def moved(name: str, to: str) -> Spoil:
    def spoil(home: Path) -> None:
        (home / to).parent.mkdir(parents=True, exist_ok=True)
        (home / name).rename(_cleared(home / to))

    return spoil


def copied(name: str, to: str) -> Spoil:
    """A file or a folder, in the place of another."""
    def spoil(home: Path) -> None:
        target, copy = _cleared(home / to), shutil.copytree if (home / name).is_dir() else shutil.copyfile
        copy(home / name, target)

    return spoil


def linked(name: str, target: str) -> Spoil:
    return lambda home: _cleared(home / name).symlink_to(target)


def gone(name: str) -> Spoil:
    return lambda home: _cleared(home / name) and None


def folder(name: str) -> Spoil:
    return lambda home: _cleared(home / name).mkdir(parents=True)


def pipe(name: str) -> Spoil:
    return lambda home: os.mkfifo(_cleared(home / name))


def empty(name: str) -> Spoil:
    return written(name, b"")


def cut(name: str) -> Spoil:
    """Half of the file."""
    return bytes_of(name, lambda data: data[:len(data) // 2])


def altered(name: str, at: float = 0.75) -> Spoil:
    """One byte, at a part of its length."""
    def change(data: bytes) -> bytes:
        place = int(at * len(data))
        return data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1:]

    return bytes_of(name, change)


def garbage(name: str) -> Spoil:
    return written(name, bytes(range(256)) * 64)


# What may have happened to any file: how it is called, and what does it.
MISHAPS = {"missing": gone, "empty": empty, "cut short": cut, "of noise": garbage, "a folder": folder, "a pipe": pipe,
           "a link to nothing": lambda name: linked(name, "nowhere"),
           "a link to itself": lambda name: linked(name, Path(name).name)}


def mishaps(what: str, name: str, words: str, named: str | None = None, without: tuple[str, ...] = ()) -> list[Case]:
    """Every mishap of a file that a command reads; the message names the file, or `named`."""
    return [Case(f"{what}, {mishap}", words, named or re.escape(name.rpartition("/")[2]), does(name))
            for mishap, does in MISHAPS.items() if mishap not in without]


def _cleared(path: Path) -> Path:
    """A place where nothing is, in a folder that is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
