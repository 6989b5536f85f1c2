"""Encoded images to RGB, as the usual ImageNet pipelines take them. pillow is the reference; torchcodec reads JPEG files to the
same pixels; what it gains, bringing them to pillow for the crop nearly takes back."""

import io
from functools import cache
from importlib.metadata import version
from types import ModuleType
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from restok.data.reading import DataError, bits, image_of

Decoder = Literal["pillow", "torchcodec"]
TURN = 0x0112                            # EXIF's tag of the orientation; 1 is upright
EXIF_WITHIN = 2 ** 17                    # bytes of a file: its segment of at most 2 ** 16 comes first, or after another one


def decode(data: bytes, decoder: Decoder = "pillow") -> Image.Image:
    """The image as RGB: palettes and CMYK converted, an alpha channel dropped, 16 bits cut to 8, EXIF turns not made. Raises
    what pillow raises, dozens of kinds, for what is no image."""
    if decoder == "torchcodec" and _plain_jpeg(data):
        return Image.fromarray(_by_torchcodec(data))
    return Image.open(io.BytesIO(data)).convert("RGB")


def require_decoder(decoder: Decoder) -> dict[str, str]:
    """Its name and version. Raises DataError where it is not installed."""
    try:
        if decoder == "torchcodec":
            _torchcodec()
        return {"name": decoder, "version": version(decoder)}
    except (ImportError, OSError, RuntimeError) as error:      # OSError: of a library that does not load
        raise DataError(f"data.decoder: torchcodec cannot be loaded ({error}); install it (pip install torchcodec), or take "
                        "pillow") from None


def inspect(data: bytes, name: str, decoder: Decoder = "pillow") -> str | None:
    """Decode an image once: what is odd about it ('transparency', '16 bits', 'CMYK', 'palette', 'EXIF turn', or
    'other pixels' where `decoder` does not give those of pillow), or None.

    Raises DataError, by `name`, for what is no readable image, is hundreds of times as long as wide, or is grey of 16 bits, of
    which pillow makes white.
    """
    with image_of(data, name) as image:
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            raise DataError(f"{name}: grey values of more than 8 bits, of which pillow makes white; round them to 8 bits, or "
                            "leave it out")
        odd, pixels = _odd(image, data), image.convert("RGB")            # which decodes it
        if decoder == "torchcodec" and _plain_jpeg(data) and not np.array_equal(pixels, _by_torchcodec(data)):
            return "other pixels"
    return odd


def _odd(image: Image.Image, data: bytes) -> str | None:
    if image.has_transparency_data:
        return "transparency"
    if bits(image, data) > 8:
        return "16 bits"
    return {"CMYK": "CMYK", "P": "palette"}.get(image.mode) or ("EXIF turn" if _turned(image) else None)


def _turned(image: Image.Image) -> bool:
    return "exif" in image.info and image.getexif().get(TURN, 1) != 1


def _plain_jpeg(data: bytes) -> bool:
    """What torchcodec may read: it makes the turn that EXIF asks for, which pillow leaves."""
    return data.startswith(b"\xff\xd8\xff") and b"Exif\0\0" not in data[:EXIF_WITHIN]


def _by_torchcodec(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    from torch import frombuffer, uint8  # and no earlier: reading by pillow does without torch
    encoded = frombuffer(bytearray(data), dtype=uint8)           # of bytes it would warn that they cannot be written
    return _torchcodec().decode_jpeg(encoded, mode="RGB").permute(1, 2, 0).numpy()


@cache
def _torchcodec() -> ModuleType:
    from torchcodec import decoders
    return decoders
