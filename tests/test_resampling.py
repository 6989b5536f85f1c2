"""A square of a resized image is what pillow gives, whatever the image's shape; a thin one takes little memory."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from restok.data import resampling
from restok.data.resampling import resized_size, resized_square

BICUBIC = Image.Resampling.BICUBIC


def picture(rng, width, height):
    return Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8))


def whole(image, side):
    """The resized image: its width first."""
    width, height = resized_size(image, side)
    return np.array(image.resize((width, image.height), BICUBIC).resize((width, height), BICUBIC))


@pytest.mark.parametrize("thin", [1, resampling.THIN])
def test_it_is_a_part_of_the_whole_to_the_bit(thin, monkeypatch):
    monkeypatch.setattr(resampling, "THIN", thin)          # 1: by our own weights, whatever the shape
    rng = np.random.default_rng(0)
    for _ in range(400):
        width, height = rng.integers(1, 90, 2) * rng.choice([1, 1, 11], 2)
        image, size = picture(rng, width, height), int(rng.integers(1, 70))
        side = size + int(rng.integers(20))
        expected = whole(image, side)
        top, left = (int(rng.integers(length - size + 1)) for length in expected.shape[:2])
        assert np.array_equal(resized_square(image, side, left, top, size), expected[top:top + size, left:left + size]), (
            width, height, side, left, top, size)


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (3, 30_000), (20_000, 300), (256, 30_000)])
def test_thin_images_are_those_of_the_whole_at_both_ends(shape):
    image = picture(np.random.default_rng(1), *shape)
    side = 64
    expected = whole(image, side)
    for start in (0, 1):
        top, left = (start * (length - side) for length in expected.shape[:2])
        assert np.array_equal(resized_square(image, side, left, top, side), expected[top:top + side, left:left + side])


def test_one_by_two_thousand_takes_no_memory():
    """Whole, 256 times as large each way, it takes 1.1 GB."""
    code = """
import resource, numpy as np
from PIL import Image
from restok.data.transforms import center_crop
center_crop(Image.new("RGB", (20, 40)), 256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for shape in ((1, 2000), (2000, 1)):
    center_crop(Image.new("RGB", shape), 256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000          # KiB


def test_of_a_common_image_it_is_what_pillow_gives_in_one_call():
    image = picture(np.random.default_rng(2), 500, 375)
    expected = np.array(image.resize(resized_size(image, 256), BICUBIC))
    assert np.array_equal(resized_square(image, 256, 43, 0, 256), expected[:256, 43:299])
