"""One reader of image files, for training and for measuring: what it does not read rightly it refuses by name."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from restok.errors import RestokError

SUFFIXES, FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp"), ("PNG", "JPEG", "WEBP", "BMP")
OTHERS = (".heic", ".heif", ".avif", ".jxl", ".svg", ".exr", ".dng", ".cr2", ".nef", ".arw")   # images that pillow may not know
SLIMMEST = 100                           # the longer side over the shorter at most: views bring the shorter to their own size


class DataError(RestokError):
    """Images that cannot be used; the message names the file or folder and the remedy."""


class Encoded(NamedTuple):
    """An image as it is stored."""

    place: str                           # for messages: the file, and within a shard the image
    read: Callable[[], bytes]            # raises DataError


def image_names(folder: str | Path) -> list[str]:
    """The files below a folder that look like images, by their suffix or their first bytes, and links to nothing, relative to
    it, in the order of their parts. Hidden files and folders are left out.

    Raises DataError for a folder that cannot be read, and for one that links reach twice.
    """
    return list(_walk(str(folder), "", {}))


def text_of(name: str) -> str:
    """A file's name as text, whatever its bytes are."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _walk(folder: str, within: str, seen: dict[str, str]) -> Iterator[str]:
    first = seen.setdefault(os.path.realpath(folder), folder)
    if first != folder:
        raise DataError(f"{folder}: a link to {first}, whose images would count twice; remove it")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check the folder") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _walk(entry.path, f"{within}{entry.name}/", seen)
        elif looks_like_an_image(Path(entry.path)):
            yield within + entry.name


def looks_like_an_image(file: Path) -> bool:
    """By its suffix or its first bytes; so does a link to nothing."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES or suffix in OTHERS or suffix in Image.registered_extensions():
        return True
    if not file.is_file():
        return not file.exists()
    try:
        Image.open(file, formats=FORMATS).close()
    except Exception:                    # pillow's plugins raise a dozen kinds on files that are no images
        return False
    return True


def require_file(file: Path) -> None:
    """Raises DataError for a link to nothing, and for a pipe or a device, from which reading would never end."""
    try:
        mode = os.stat(file).st_mode
    except OSError as error:
        what = "a link to nothing" if file.is_symlink() else f"cannot be read ({error.strerror})"
        raise DataError(f"{file}: {what}; replace it, or leave it out") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{file}: no regular file; replace it, or leave it out")


def read_bytes(file: Path) -> bytes:
    """The bytes of a regular file. Raises DataError, which names it."""
    require_file(file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the file") from None


@contextmanager
def plain_image(data: bytes, name: str) -> Iterator[Image.Image]:
    """An encoded image, not yet decoded. Raises DataError, by `name`, for what is no image of FORMATS of 8 bits a channel
    without alpha, and for what pillow cannot do with it within the block."""
    with image_of(data, name) as image:
        _require_plain(name, image, data)
        yield image


@contextmanager
def image_of(data: bytes, name: str) -> Iterator[Image.Image]:
    """An encoded image, not yet decoded. Raises DataError, by `name`, for what is no image of FORMATS, or too slim, and for
    what pillow cannot do with it within the block."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if max(image.size) > SLIMMEST * min(image.size):
                raise DataError(f"{name}: {image.height} x {image.width} pixels (height x width), one more than {SLIMMEST} "
                                "times the other; cut it, or leave it out")
            yield image
    except DataError:
        raise
    except Exception as error:           # pillow's plugins raise a dozen kinds on broken files
        unknown = isinstance(error, UnidentifiedImageError)      # whose own words name an object in memory
        reason = f"none of {', '.join(FORMATS)}, or cut short" if unknown else f"{type(error).__name__}: {error}"
        raise DataError(f"{name}: not a readable image ({reason}); replace it, or leave it out") from None


def _require_plain(name: str, image: Image.Image, data: bytes) -> None:
    if image.has_transparency_data:
        raise DataError(f"{name}: has an alpha channel; lay it over the background that was meant, and save it as RGB")
    if bits(image, data) > 8:
        raise DataError(f"{name}: has {bits(image, data)} bits a channel; round it to 8 bits first")


def bits(image: Image.Image, data: bytes) -> int:
    """Bits a channel of an encoded image."""
    return data[24] if image.format == "PNG" else 8      # the third value of IHDR; pillow opens RGB of 16 as 8, without a word


def require_suffix(file: Path) -> None:
    """Raises DataError for a file of `image_names` that has none of SUFFIXES."""
    if file.suffix.lower() not in SUFFIXES:
        require_file(file)
        raise DataError(f"{file}: not of a kind that is read ({', '.join(SUFFIXES)}); convert or rename it, or move it away")
