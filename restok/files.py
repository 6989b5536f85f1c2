"""Files that are whole or absent: atomic folders, JSON, hashes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout


class FileError(ValueError):
    """A file that cannot be read as what it should be; the message names it."""


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` to write into; at the end of the block it is on the disk and takes the place of `path`.

    After an exception the new folder is gone and the old one untouched. A killed process leaves at most hidden siblings: a
    half-written `.NAME.*.partial`, which the next call removes, or, killed between the two renames, `.NAME.*.replaced`, which
    is the old folder, whole. Raises FileError while another process writes the same folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileError(f"{path}: another process is writing it; wait for it, or stop it first") from None
    try:
        for left_over in path.parent.glob(f".{path.name}.*.partial"):
            shutil.rmtree(left_over)
        yield from _replace(path)
    finally:
        lock.release()


def _replace(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    replaced = partial.with_suffix(".replaced")
    partial.mkdir()
    try:
        yield partial
        _sync_tree(partial)
        if path.exists():
            path.rename(replaced)            # a rename cannot replace a folder that is not empty
        try:
            partial.rename(path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def sha256_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write `value`, in its own order of keys, through a temporary sibling: readers see the old file or the new one, whole.

    Raises ValueError on NaN and infinity, which JSON cannot hold.
    """
    path = Path(path)
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Write named arrays, uncompressed as ADM's batches are, through a temporary sibling."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial.npz")
    try:
        np.savez(partial, **arrays)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises FileError, which names the file, where it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise FileError(f"{path}: not valid JSON ({error}); delete it and run the step that writes it again") from None


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
