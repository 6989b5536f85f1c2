"""npz files, whole or by rows: memory never holds an array that the disk can."""

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np

from restok.errors import InputError
from restok.files import FileError, atomic_file, require_no_pipe
from restok.files.artifact import Origin, digest_of
from restok.files.outputs import MARK


def _mark(archive: zipfile.ZipFile, path: Path, made_of: Origin | None) -> bytes:
    """The comment of the archive: by whom, and the manifest of its arrays."""
    manifest = made_of and made_of.manifest(path) | {"digest": arrays_digest(archive)}
    return f"{MARK} {json.dumps(manifest)}".encode()


def arrays_digest(archive: zipfile.ZipFile) -> str:
    """Of the arrays by their lengths and checksums (CRC-32), which the archive lists: no array is read."""
    return digest_of({each.filename: [each.file_size, each.CRC] for each in archive.infolist()})


def npz_manifest(path: Path) -> dict | None:
    """What the comment of an archive of ours says, with the digest of what lies there as `found`; None of another's. Raises
    FileError for what is no archive."""
    with _open_npz(path) as archive:
        mark, _, text = archive.comment.partition(b" ")
        if mark != MARK.encode():
            return None
        manifest = json.loads(text)
        return manifest and manifest | {"found": arrays_digest(archive)}


def write_npz(path: str | Path, made_of: Origin | None = None, /, **arrays: np.ndarray) -> None:
    """Write named arrays, uncompressed as ADM's batches are, with what they were made of in the archive's comment."""
    with atomic_file(path) as partial:
        with open(partial, "wb") as file:                # savez would append its suffix to a name
            np.savez(file, **arrays)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.comment = _mark(archive, Path(path), made_of)


def write_npz_rows(path: str | Path, name: str, shape: tuple[int, ...], dtype: np.dtype | type, rows: Iterable[np.ndarray],
                   made_of: Origin | None = None, /, **arrays: Callable[[], np.ndarray]) -> None:
    """Write an npz, as `write_npz` does, whose array `name` comes in pieces, some rows after the other, so that memory never
    holds it whole.

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
        archive.comment = _mark(archive, Path(path), made_of)


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
    require_no_pipe(path)
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except zipfile.BadZipFile as error:
        raise FileError(f"{path}: not a whole npz file ({error}); write or copy it again, with numpy.savez") from None


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
