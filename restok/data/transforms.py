"""From pillow images to square uint8 arrays and to tensors in [0, 1], and back."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from restok import config
from restok.data.resampling import resized_size, resized_square
from restok.errors import InputError

Pixels = UInt8[np.ndarray, "h w c"]


def random_crop(image: Image.Image, size: int, scale: tuple[float, float], flip: bool, rng: np.random.Generator) -> Pixels:
    """Table 7. Training view: a random size x size crop whose side is a fraction, drawn from `scale`, of the shorter side.

    Mirrored half the time if `flip`. Every draw comes from `rng`, as many whatever the image.
    """
    fraction, right, down, mirror = rng.uniform(*scale), rng.random(), rng.random(), rng.random() < 0.5
    side = round(size / fraction)
    width, height = resized_size(image, side)
    view = resized_square(image, side, int(right * (width - size + 1)), int(down * (height - size + 1)), size)
    return mirrored(view) if flip and mirror else view


def center_crop(image: Image.Image, size: int, scale: float = 1.0) -> Pixels:
    """Evaluation view: the centre size x size of the image, its shorter side brought to `scale` times `size`."""
    side = round(size * scale)
    width, height = resized_size(image, side)
    return resized_square(image, side, (width - size) // 2, (height - size) // 2, size)


def crops(image: Image.Image, size: int, codes: config.Codes) -> list[Pixels]:
    """LlamaGen's views for the generator's codes (ten crops): for each scale, of a centre square of int(size * scale) pixels
    (281 for 256 and 1.1), the four corners and the centre, or the centre alone; then the same mirrored if `codes.flip`."""
    views = []
    for scale in codes.scales:
        side = int(size * scale)
        square = center_crop(image, side)
        far, middle = side - size, (side - size) // 2
        corners = [(0, 0), (far, 0), (0, far), (far, far)] if codes.five_crops else []
        cut = [square[top:top + size, left:left + size] for left, top in [*corners, (middle, middle)]]
        views += cut + ([mirrored(view) for view in cut] if codes.flip else [])
    return views


def mirrored(view: Pixels) -> Pixels:
    return np.ascontiguousarray(view[:, ::-1])


def to_tensor(images: Sequence[Pixels] | UInt8[np.ndarray, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """8-bit images of one size as floats in [0, 1]."""
    pixels = torch.from_numpy(np.stack(images) if isinstance(images, Sequence) else np.ascontiguousarray(images))
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def to_uint8(images: Float[Tensor, "b c h w"], rounding: str = "round") -> UInt8[np.ndarray, "b h w c"]:
    """`eight_bits`, on the host. Raises ValueError on NaN and infinity."""
    require_pixels(bool(images.isfinite().all()))
    return eight_bits(images, rounding).cpu().numpy()


def eight_bits(images: Float[Tensor, "b c h w"], rounding: str = "round") -> UInt8[Tensor, "b h w c"]:
    """Clamp to [0, 1] and bring to 8 bits, the only place where that is done: rounded, or as the release's samples 'truncate'd,
    half a grey level darker. Of finite images, on their own device, for which it does not wait."""
    pixels = images.detach().float().clamp(0, 1).mul(255)
    pixels = (pixels.round() if rounding == "round" else pixels).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous()


def require_pixels(finite: bool) -> None:
    """Raises ValueError for images that are not."""
    if not finite:
        raise InputError("images hold NaN or infinity, which no 8-bit value stands for: the model that made them has diverged")
