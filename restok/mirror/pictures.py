"""A grid of samples, as a picture."""

import io
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from PIL import Image

from restok.files.npz import NpzArray

MOST, LEAST = 100, 512               # pictures of a grid at the most, and its pixels at the least


def grid(path: Path) -> bytes:
    """The first samples of an npz (arr_0: n h w 3), as PNG."""
    array = NpzArray(path, "arr_0")
    images = array.read(0, min(array.shape[0], MOST))                          # n h w 3
    n, height, width, _ = images.shape
    columns = ceil(sqrt(n))
    canvas = np.full((ceil(n / columns) * height, columns * width, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * height, number % columns * width
        canvas[top:top + height, left:left + width] = image
    out, scale = io.BytesIO(), max(1, LEAST // max(canvas.shape[:2]))
    Image.fromarray(canvas.repeat(scale, 0).repeat(scale, 1)).save(out, "PNG")
    return out.getvalue()
