"""Files that are whole or absent: atomic folders and files, JSON, hashes; npz in `restok.files.npz`."""

import ctypes
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from restok.errors import RestokError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)       # what the system says of a full disk, a quota, a limit of a file's size


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
    """A new folder beside `path` to write into; at the end of the block it is on the disk and takes the place of `path`, or of
    the folder that `path` links to, in one step: a reader finds the old folder or the new one.

    After an exception the new folder is gone and the old one untouched. A killed process leaves at most a hidden sibling,
    `.NAME.*.partial`, which the next call removes. Raises FileError while another process writes the same folder.
    """
    with reserved(path), new_folder(path) as partial:
        yield partial


@contextmanager
def reserved(path: str | Path) -> Iterator[None]:
    """Nobody else writes the folder `path` meanwhile; what killed processes left of it is gone. Raises FileError while another
    process holds it, OSError where nothing can be written beside it."""
    path = _place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    refusal = FileError(f"{path}: another process is writing it; wait for it, or stop it first")
    with locked(path.with_name(f".{path.name}.lock"), refusal):
        for replaced in path.parent.glob(f".{path.name}.*.replaced"):
            shutil.rmtree(replaced) if path.exists() else replaced.rename(path)
        for left_over in path.parent.glob(f".{path.name}.*.partial"):
            shutil.rmtree(left_over)
        yield


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """`atomic_folder`, where `path` is `reserved` already."""
    path = _place(path)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.mkdir()
        yield partial
        for written in (*partial.rglob("*"), partial):
            _sync(written)
        _take_place(partial, path)
    except Exception as error:
        _name(error, path, partial)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def real(path: str | Path) -> Path:
    """Where a path leads, through all links; those in a circle lead nowhere, and are no error here."""
    return Path(os.path.realpath(path))


def _place(path: str | Path) -> Path:
    """Where a folder is written: behind a link, what it links to."""
    return real(path) if Path(path).is_symlink() else Path(path)


def _take_place(partial: Path, path: Path) -> None:
    """`partial` becomes `path`; what was there is then at `partial`, or gone."""
    if not path.exists():
        partial.rename(path)
    elif not _exchange(partial, path):
        replaced = partial.with_suffix(".replaced")      # `reserved` brings it back where the process is killed in between
        path.rename(replaced)
        partial.rename(path)
        shutil.rmtree(replaced, ignore_errors=True)
    _sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step, by Linux's renameat2. False where the system, or the file system, has no such thing."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2                             # AT_FDCWD, RENAME_EXCHANGE
    if rename is None:
        return False
    if rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A new file's path beside `path`, of the same suffix, to write to; at the end of the block it is on the disk and takes
    the place of `path`, so readers see the old file or the new one, whole.

    After an exception the new file is gone and the old one untouched. A killed process leaves at most a hidden
    `.NAME.*.partial.SUFFIX`, which `remove_left_over` removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except Exception as error:
        _name(error, path, partial)
        raise
    finally:
        partial.unlink(missing_ok=True)


def remove_left_over(folder: Path, name: str) -> None:
    """Remove what killed processes left of files that `atomic_file` was to write in `folder`, of a pattern with a suffix."""
    pattern = Path(name)
    for partial in folder.glob(f".{pattern.stem}.*.partial{pattern.suffix}"):
        partial.unlink()


def _name(error: Exception, path: Path, partial: Path) -> None:
    """Raises OSError, which names `path` or the file in it, where there was no room to write `partial`. Every library says that
    in words of its own, so the system is asked again."""
    if isinstance(error, RestokError):
        return
    reason = getattr(error, "errno", None)
    if reason not in FULL:
        reason = _refusal(partial / "more" if partial.is_dir() else partial)
    if reason is not None:
        inner = Path(str(getattr(error, "filename", None) or partial))
        named = path / inner.relative_to(partial) if inner.is_relative_to(partial) else path
        raise OSError(reason, os.strerror(reason), str(named)) from error


def _refusal(file: Path) -> int | None:
    """Why more does not go into a file: one of FULL, or None."""
    try:
        with open(file, "ab") as more:
            more.write(bytes(2 ** 17))
            more.flush()
            os.fsync(more.fileno())
    except OSError as error:
        return error.errno if error.errno in FULL else None


def require_free(out: Path, inputs: Iterable[Path], written: Callable[[Path], bool] | None) -> None:
    """Raises FileError where writing `out` would overwrite one of `inputs`, or put a file into one.

    `written`: which paths below `out` the verb itself writes, where `out` is a folder, replaced whole: it must hold nothing
    else. None: `out` is a file.
    """
    place = real(out)
    for path in inputs:
        if place.is_relative_to(real(path)) or real(path).is_relative_to(place):
            raise FileError(f"{out}: would be written over {path}, which is read, or among its files; name another file or "
                            "folder")
    if written and out.exists() and not out.is_dir():
        raise FileError(f"{out}: is a file; name a folder to write")
    if written and (others := [path for path in sorted(out.rglob("*")) if not written(path)]):
        raise FileError(f"{out}: would be replaced whole, and holds {others[0]}; name another folder to write")


def sha256_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes. Raises FileError for a pipe."""
    require_no_pipe(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write `value`, in its own order of keys. Raises ValueError on NaN and infinity, which JSON cannot hold."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text, "utf-8", "backslashreplace")       # bytes of a name that are no text: escaped as in JSON


@contextmanager
def reading(path: str | Path, damaged: Callable[[Exception], RestokError]) -> Iterator[None]:
    """Around a library's reader of the file `path`: whatever it raises on one that is damaged, or of another kind, becomes
    `damaged` of that.

    Raises FileError, in the system's words, for a file that cannot be opened or read: nothing is wrong with what it holds.
    """
    require_no_pipe(path)
    try:
        yield
    except (RestokError, MemoryError):
        raise
    except Exception as error:
        if refusal := _unopened(path) or getattr(error, "strerror", None):
            raise FileError(f"{path}: cannot be read ({refusal}); check its place and its mode") from None
        raise damaged(error) from error


def require_no_pipe(path: str | Path) -> None:
    """Raises FileError for a pipe or a device, from which reading might never end."""
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise FileError(f"{path}: no regular file; name one")


def _unopened(path: str | Path) -> str | None:
    """Why the system does not open a file; of any such file some readers say that it is not there, others that it is cut."""
    try:
        open(path, "rb").close()
    except OSError as error:
        return error.strerror


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises FileError, which names the file, where it is missing or not JSON."""
    remedy = "delete it and run the step that writes it again"
    with reading(path, lambda error: FileError(f"{path}: not valid JSON ({error}); {remedy}")):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
