"""Odd images are taken as the usual ImageNet pipelines take them, and known by name; the decoders give the same pixels."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from restok.data import decoding
from restok.data.decoding import decode, inspect, require_decoder
from restok.data.reading import DataError

TURN = Image.Exif()
TURN[decoding.TURN] = 6


@pytest.fixture(scope="module")
def photograph():
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((133, 97), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def clear(image):
    return Image.merge("RGBA", (*image.split(), Image.new("L", image.size, 0)))


PLAIN = {"4:2:0": {}, "4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1}, "progressive": {"progressive": True}}


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_decoders_give_the_same_pixels(photograph, options, mode):
    data = encoded(photograph.convert(mode), "JPEG", **(options if mode == "RGB" else {}))
    assert inspect(data, "a.jpg") is inspect(data, "a.jpg", "torchcodec") is None
    assert np.array_equal(decode(data, "torchcodec"), decode(data)) and decode(data).mode == "RGB"


ODD = {
    "CMYK": lambda image: encoded(image.convert("CMYK"), "JPEG"), "palette": lambda image: encoded(image.quantize(8), "PNG"),
    "transparency": lambda image: encoded(clear(image), "PNG"), "EXIF turn": lambda image: encoded(image, "JPEG", exif=TURN)}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("decoder", ["pillow", "torchcodec"])
def test_odd_images_are_named_and_read_as_pillow_converts_them(photograph, kind, decoder):
    data = ODD[kind](photograph)
    assert inspect(data, "a", decoder) == kind
    image = decode(data, decoder)
    assert image.size == (133, 97) and np.array_equal(image, Image.open(io.BytesIO(data)).convert("RGB"))


def test_what_is_clear_keeps_its_colour(photograph):
    assert np.array_equal(decode(encoded(clear(photograph), "PNG")), photograph)


def test_sixteen_bits_of_colour_are_cut_and_of_grey_refused():
    deep = Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16))
    with pytest.raises(DataError, match=r"deep\.png: grey values of more than 8 bits"):
        inspect(encoded(deep, "PNG"), "deep.png")
    assert inspect(_rgb16(np.full((4, 5, 3), 0x80FF, ">u2")), "rgb.png") == "16 bits"
    assert (np.asarray(decode(_rgb16(np.full((4, 5, 3), 0x80FF, ">u2")))) == 0x80).all()


def _rgb16(pixels):
    """A PNG of 16 bits a channel, which pillow does not write."""
    import struct
    import zlib

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_what_is_no_image_is_refused_by_name(photograph):
    cut = encoded(photograph, "JPEG")[:-300], encoded(photograph, "PNG")[:900]
    for data in (b"", b"no image", *cut, encoded(photograph, "GIF")):
        with pytest.raises(DataError, match=r"^some\.jpg: not a readable image"):
            inspect(data, "some.jpg", "torchcodec")
    with pytest.raises(DataError, match=r"thin\.png: 1 x 101 pixels"):
        inspect(encoded(Image.new("RGB", (101, 1)), "PNG"), "thin.png")


def test_other_pixels_are_noticed(photograph, monkeypatch):
    monkeypatch.setattr(decoding, "_by_torchcodec", lambda data: np.asarray(photograph))     # as before its compression
    data = encoded(photograph, "JPEG", quality=30)
    assert inspect(data, "a.jpg", "torchcodec") == "other pixels" and inspect(data, "a.jpg") is None


def test_a_decoder_that_is_not_there_is_named(monkeypatch):
    assert require_decoder("pillow")["version"] and require_decoder("torchcodec")["name"] == "torchcodec"
    decoding._torchcodec.cache_clear()
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(DataError, match=r"data\.decoder: torchcodec cannot be loaded"):
        require_decoder("torchcodec")
