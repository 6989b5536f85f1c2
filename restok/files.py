"""Files that are whole or absent: atomic folders and files, JSON, npz (whole or by rows), hashes."""

import errno
import hashlib
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout

from restok.errors import InputError, RestokError


class FileError(RestokError):
    """A file that cannot be read as what it should be; the message names it."""


@contextmanager
def locked(path: Path, refusal: RestokError) -> Iterator[None]:
    """Holds the lock file `path`. Raises `refusal` while another holds it."""
    try:
        held = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise refusal from None
    with held:
        yield


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path` to write into; at the end of the block it is on the disk and takes the place of `path`.

    After an exception the new folder is gone and the old one untouched. A killed process leaves at most hidden siblings: a
    half-written `.NAME.*.partial`, which the next call removes, or, killed between the two renames, `.NAME.*.replaced`, which
    is the old folder, whole. Raises FileError while another process writes the same folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    refusal = FileError(f"{path}: another process is writing it; wait for it, or stop it first")
    with locked(path.with_name(f".{path.name}.lock"), refusal):
        for left_over in path.parent.glob(f".{path.name}.*.partial"):
            shutil.rmtree(left_over)
        partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
        partial.mkdir()
        try:
            yield partial
            for written in (*partial.rglob("*"), partial):
                _sync(written)
            _take_place(partial, path)
        except OSError as error:
            _name(error, path)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _take_place(partial: Path, path: Path) -> None:
    replaced = partial.with_suffix(".replaced")
    if path.exists():
        path.rename(replaced)                # a rename cannot replace a folder that is not empty
    try:
        partial.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
    _sync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A new file's path beside `path`, of the same suffix, to write to; at the end of the block it is on the disk and takes
    the place of `path`, so readers see the old file or the new one, whole.

    After an exception the new file is gone and the old one untouched. A killed process leaves at most a hidden
    `.NAME.*.partial.SUFFIX`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        _name(error, path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _name(error: OSError, path: Path) -> None:
    """What the system says of a full disk names no file: it shall name `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and error.filename is None:
        error.filename = str(path)


def require_free(out: Path, inputs: Iterable[Path], written: Callable[[Path], bool] | None) -> None:
    """Raises FileError where writing `out` would overwrite one of `inputs`, or put a file into one.

    `written`: which paths below `out` the verb itself writes, where `out` is a folder, replaced whole: it must hold nothing
    else. None: `out` is a file.
    """
    place = out.resolve()
    for path in inputs:
        if place.is_relative_to(path.resolve()) or path.resolve().is_relative_to(place):
            raise FileError(f"{out}: would be written over {path}, which is read, or among its files; name another file or "
                            "folder")
    if written and out.exists() and not out.is_dir():
        raise FileError(f"{out}: is a file; name a folder to write")
    if written and (others := [path for path in sorted(out.rglob("*")) if not written(path)]):
        raise FileError(f"{out}: would be replaced whole, and holds {others[0]}; name another folder to write")


def sha256_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write `value`, in its own order of keys. Raises ValueError on NaN and infinity, which JSON cannot hold."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Write named arrays, uncompressed as ADM's batches are."""
    with atomic_file(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def write_npz_rows(path: str | Path, name: str, shape: tuple[int, ...], dtype: np.dtype | type, rows: Iterable[np.ndarray],
                   **arrays: Callable[[], np.ndarray]) -> None:
    """Write an npz whose array `name` comes in pieces, some rows after the other, so that memory never holds it whole.

    `arrays` are asked for their values after the last piece. Raises ValueError where the pieces do not make up `shape`.
    """
    with atomic_file(path) as partial, zipfile.ZipFile(partial, "w", allowZip64=True) as archive:
        written = 0
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_2_0(
                file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape})
            for piece in rows:
                if piece.dtype != dtype or piece.shape[1:] != shape[1:]:
                    raise InputError(f"{path}: a piece of {piece.dtype} {piece.shape} does not fit {np.dtype(dtype)} {shape}")
                file.write(np.ascontiguousarray(piece).data)
                written += len(piece)
        if written != shape[0]:
            raise InputError(f"{path}: {written} rows came, {shape[0]} were announced")
        for other, value in arrays.items():
            with archive.open(f"{other}.npy", "w") as file:
                np.lib.format.write_array(file, value(), allow_pickle=False)


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises FileError, which names the file, where it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise FileError(f"{path}: not valid JSON ({error}); delete it and run the step that writes it again") from None


def npz_names(path: str | Path) -> list[str]:
    """The names of the arrays in an npz file. Raises FileError where it is missing or not one."""
    with _open_npz(path) as archive:
        return _names(archive)


class NpzArray:
    """One array of an npz file, stored or compressed, read by rows: `shape`, `dtype`, `read(start, stop)`.

    The file stays open. Raises FileError, which names file, array and remedy, where the file is missing or no npz, has no
    such array, or holds it in a way that has no rows to read: in Fortran order, as pickled objects, cut short.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __init__(self, path: str | Path, name: str):
        self._what = f"{path}: array {name!r}"
        archive = _open_npz(path)
        if name not in (names := _names(archive)):
            raise FileError(f"{path}: has no array {name!r}, only {', '.join(names) or 'none'}; save it under {name!r}")
        with self._readable():
            self._file = archive.open(f"{name}.npy")
            reader = {(1, 0): np.lib.format.read_array_header_1_0,
                      (2, 0): np.lib.format.read_array_header_2_0}[np.lib.format.read_magic(self._file)]
            self.shape, fortran_order, self.dtype = reader(self._file)
        if fortran_order and len(self.shape) > 1:
            raise FileError(f"{self._what} is in Fortran order; save numpy.ascontiguousarray of it")
        if self.dtype.hasobject:
            raise FileError(f"{self._what} holds pickled objects, which may run code; save it with a numeric dtype")
        self._start, self._row = self._file.tell(), self.dtype.itemsize * math.prod(self.shape[1:])
        held = archive.getinfo(f"{name}.npy").file_size - self._start
        if held != self.dtype.itemsize * math.prod(self.shape):
            raise FileError(f"{self._what} of {self.dtype} {self.shape} has {held} bytes, too few or too many; write it again")
        self._lock = Lock()              # of the position in the file, between threads

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start, ..., stop - 1. Fast in increasing order; going back reads a compressed array from its beginning.

        Raises FileError on rows that the array does not have and on damaged data; a checksum is compared where all rows are
        read in order.
        """
        if not 0 <= start <= stop <= (self.shape or (0,))[0]:
            raise FileError(f"{self._what} of shape {self.shape} has no rows {start} to {stop - 1}; ask for fewer")
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        with self._lock, self._readable():
            self._file.seek(self._start + start * self._row)
            if rows.size and self._file.readinto(rows.reshape(-1).view(np.uint8)) != rows.nbytes:
                raise EOFError("cut short")
        return rows

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            reason = f"{type(error).__name__}: {error}"
            raise FileError(f"{self._what} cannot be read ({reason}); write or copy the file again") from None


def _open_npz(path: str | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except zipfile.BadZipFile as error:
        raise FileError(f"{path}: not a whole npz file ({error}); write or copy it again, with numpy.savez") from None


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
