"""What a verb is about to write, held against what is there, before any work: nothing of anybody's is lost."""

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from restok.files import FileError, read_json, real, require_no_pipe

MARK = "restok"          # by which files are known: an npz's comment, a picture's Software or comment


def require_apart(written: Mapping[str, tuple[Path, bool]], read: Mapping[str, Sequence[Path]]) -> None:
    """Raises FileError where what is written, files and (True) folders by their options, would take the place of what is read,
    or of each other."""
    places = {flag: real(path) for flag, (path, _) in written.items()}
    for flag, (path, folder) in written.items():
        place = places[flag]
        for other, paths in read.items():
            for at in paths:
                if place == real(at) or (folder and _nested(place, real(at))):
                    raise FileError(f"{flag} {path}: would take the place of {other} {at}, which is read, or lies in it; name "
                                    "another place")
        for other, at in places.items():
            if other != flag and (place == at or (folder and at.is_relative_to(place))):
                raise FileError(f"{flag} {path}: {other} {written[other][0]} would be written there, too; name another place "
                                "for one of them")


def _nested(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def require_writable(path: Path, folder: bool, kinds: Sequence[str] = ()) -> None:
    """Raises FileError where a file of one of these `kinds` (`kind_of`) cannot become `path`, which is a folder, or a file of
    another kind, or somebody's (a folder, its verb looks into itself); OSError where nothing can be written beside it, as on a
    full disk."""
    if not folder and path.is_dir():
        raise FileError(f"{path}: is a folder; name a file to write")
    require_no_pipe(path)                # nor a device: the new file would take its place
    if not folder and path.is_file() and (kind := kind_of(path)) not in kinds:
        what = f"is of kind {kind!r}, which this would delete" if kind else "is there, and restok did not write it"
        raise FileError(f"{path}: {what}; name another file, or move it away")
    above = next(up for up in Path(os.path.abspath(path)).parents if up.exists())
    if not above.is_dir():
        raise FileError(f"{path}: cannot be written below {above}, which is a file; name another place")
    try:
        with tempfile.TemporaryFile(dir=above) as probe:
            probe.write(b"\0")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def kind_of(path: Path) -> str | None:
    """What restok wrote into a file: 'evaluation', 'samples', 'statistics', ...; None: it did not. Of text that is made from
    other files alone, tables and pages, the suffix is all that is known."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            value = read_json(path)
            return "benchmark" if isinstance(value, list) and "repeats" in value[0] else value.get("kind")
        if suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                mark, _, made_of = archive.comment.decode().partition(" ")
            return (json.loads(made_of) or {"kind": "images"})["kind"] if mark == MARK else None
        if suffix == ".safetensors":
            from safetensors import safe_open
            with safe_open(path, "np") as file:
                return "statistics" if "facts" in (file.metadata() or {}) else None
        if suffix in (".png", ".jpg", ".jpeg"):
            from PIL import Image
            with Image.open(path) as picture:
                marks = picture.info.get("Software"), picture.info.get("comment", b"").decode("latin-1")
            return "picture" if MARK in marks else None
    except Exception:    # whatever a library says of a damaged file: restok writes whole ones
        return None
    return suffix if suffix in (".csv", ".pdf", ".html", ".md") else None
