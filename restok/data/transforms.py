"""From pillow images to square uint8 arrays and to tensors in [0, 1], and back."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from restok import config
from restok.errors import InputError

Pixels = UInt8[np.ndarray, "h w c"]


def random_crop(image: Image.Image, size: int, scale: tuple[float, float], flip: bool, rng: np.random.Generator) -> Pixels:
    """Table 7. Training view: a random size x size crop whose side is a fraction, drawn from `scale`, of the shorter side.

    Mirrored half the time if `flip`. Every draw comes from `rng`, as many whatever the image.
    """
    fraction, right, down, mirror = rng.uniform(*scale), rng.random(), rng.random(), rng.random() < 0.5
    image = _resize(image, round(size / fraction))
    left, top = int(right * (image.width - size + 1)), int(down * (image.height - size + 1))
    return _cut(image, left, top, size, mirror=flip and mirror)


def center_crop(image: Image.Image, size: int, scale: float = 1.0) -> Pixels:
    """Evaluation view: the centre size x size of the image, its shorter side brought to `scale` times `size`."""
    image = _resize(image, round(size * scale))
    return _cut(image, (image.width - size) // 2, (image.height - size) // 2, size)


def crops(image: Image.Image, size: int, codes: config.Codes) -> list[Pixels]:
    """LlamaGen's views for the generator's codes (ten crops): for each scale, of a centre square of int(size * scale) pixels
    (281 for 256 and 1.1), the four corners and the centre, or the centre alone; then the same mirrored if `codes.flip`."""
    views = []
    for scale in codes.scales:
        side = int(size * scale)
        square = Image.fromarray(center_crop(image, side))
        far, middle = side - size, (side - size) // 2
        corners = [(0, 0), (far, 0), (0, far), (far, far)] if codes.five_crops else []
        for mirror in (False, True) if codes.flip else (False,):
            views += [_cut(square, left, top, size, mirror) for left, top in [*corners, (middle, middle)]]
    return views


def to_tensor(images: Sequence[Pixels] | UInt8[np.ndarray, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """8-bit images of one size as floats in [0, 1]."""
    pixels = torch.from_numpy(np.stack(images) if isinstance(images, Sequence) else np.ascontiguousarray(images))
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def to_uint8(images: Float[Tensor, "b c h w"], rounding: str = "round") -> UInt8[np.ndarray, "b h w c"]:
    """Clamp to [0, 1] and bring to 8 bits, the only place where that is done: rounded, or as the release's samples 'truncate'd,
    half a grey level darker. Raises ValueError on NaN and infinity."""
    if not images.isfinite().all():
        raise InputError("images hold NaN or infinity, which no 8-bit value stands for: the model that made them has diverged")
    pixels = images.detach().float().clamp(0, 1).mul(255)
    pixels = (pixels.round() if rounding == "round" else pixels).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _resize(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side at `side`; pillow's bicubic filter widens, that is antialiases, when it shrinks."""
    ratio = side / min(image.size)
    return image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)


def _cut(image: Image.Image, left: int, top: int, size: int, mirror: bool = False) -> Pixels:
    view = image.crop((left, top, left + size, top + size))
    return np.array(ImageOps.mirror(view) if mirror else view)
