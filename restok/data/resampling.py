"""A square of a resized image: what pillow's bicubic filter gives, of thin images without the rest of the resized one.

Pillow resizes one axis after the other and rounds to 8 bits between. Which comes first depends on its version: up to 12 the
width, as when the field's numbers were measured; from 13 on the height, where much more of that goes. Here it is the width.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

THIN = 8                    # the longer side in shorter sides, from which on the longer one is not resized whole
DIGITS = 22                 # binary ones of pillow's weights
AT_ONCE = 128               # rows or columns: as float64 a pixel takes eight times its bytes
SUPPORT = 2.0               # of the filter, in pixels of the coarser side


def resized_square(image: Image.Image, side: int, left: int, top: int, size: int) -> UInt8[np.ndarray, "s s c"]:
    """The size x size pixels at (left, top) of an RGB image whose shorter side is brought to `side`."""
    width, height = resized_size(image, side)
    if max(image.size) < THIN * min(image.size):
        whole = _resize(_resize(image, width, image.height), width, height)
        return np.array(whole.crop((left, top, left + size, top + size)))
    if height > width:
        first, weights = _weights(image.height, height, top, size)
        rows = image.crop((0, first, image.width, first + weights.shape[1]))
        pixels = np.array(_resize(rows, width, rows.height))[:, left:left + size]
        return _weighted(weights, pixels)
    first, weights = _weights(image.width, width, left, size)
    columns = np.array(image.crop((first, 0, first + weights.shape[1], image.height)))
    pixels = np.ascontiguousarray(_weighted(weights, columns.swapaxes(0, 1)).swapaxes(0, 1))
    return np.array(_resize(Image.fromarray(pixels), size, height))[top:top + size]


def resized_size(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height of an image whose shorter side is brought to `side`."""
    ratio = side / min(image.size)
    return round(image.width * ratio), round(image.height * ratio)


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """It widens the filter, that is antialiases, where it shrinks."""
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _weights(before: int, after: int, start: int, count: int) -> tuple[int, Int[np.ndarray, "count n"]]:
    """For `count` pixels from `start` on, of an axis of `before` pixels that is brought to `after`: the first pixel that they
    are made of, and how much each takes of that and of those behind it."""
    scale = before / after
    spread = max(scale, 1.0)
    centres = (np.arange(start, start + count) + 0.5) * scale
    least = np.maximum((centres - SUPPORT * spread + 0.5).astype(int), 0)
    most = np.minimum((centres + SUPPORT * spread + 0.5).astype(int), before)
    taps = np.arange((most - least).max())[:, None]                      # n 1
    weights = _bicubic((taps + least - centres + 0.5) * (1.0 / spread)) * (least + taps < most)           # n count
    weights /= weights.sum(0)
    first, last = int(least.min()), int(most.max()) - 1
    whole = np.zeros((count, last + 1 - first), np.int64)
    np.add.at(whole, (np.arange(count), np.minimum(least + taps, last) - first),
              np.trunc(weights * (1 << DIGITS) + np.copysign(0.5, weights)).astype(np.int64))
    return first, whole


def _bicubic(x: Float[np.ndarray, "n count"]) -> Float[np.ndarray, "n count"]:
    """Keys' cubic convolution with a = -0.5."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _weighted(weights: Int[np.ndarray, "count n"], pixels: UInt8[np.ndarray, "n m c"]) -> UInt8[np.ndarray, "count m c"]:
    """In whole numbers, which float64 holds exactly, and multiplies faster."""
    weights, made = weights.astype(np.float64), np.empty((len(weights), *pixels.shape[1:]), np.uint8)
    for start in range(0, pixels.shape[1], AT_ONCE):
        part = np.s_[:, start:start + AT_ONCE]
        sums = np.tensordot(weights, pixels[part].astype(np.float64), 1)
        made[part] = np.clip(np.floor((sums + (1 << (DIGITS - 1))) / (1 << DIGITS)), 0, 255)
    return made
