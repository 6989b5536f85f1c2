"""Encoded images, wherever they are stored: checked, and decoded."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from restok.data.reading import DataError, Encoded, plain_image
from restok.data.transforms import Pixels, center_crop


def check_image(encoded: Encoded) -> tuple[tuple[int, int], str]:
    """Height and width of an encoded image, and sha256 of its bytes. Raises what `plain_image` does."""
    data = encoded.read()
    with plain_image(data, encoded.place) as image:
        return (image.height, image.width), hashlib.sha256(data).hexdigest()


def decode_image(encoded: Encoded, crop: int | None) -> Pixels:
    """The RGB image that `check_image` accepts, whole or its centre crop. Raises DataError for a damaged one."""
    with plain_image(encoded.read(), encoded.place) as image:
        image = image.convert("RGB")
    return np.array(image) if crop is None else center_crop(image, crop)


def of_one_size(images: Sequence[Encoded], checked: Iterable[tuple[tuple[int, int], str]],
                 crop: int | None) -> list[tuple[tuple[int, int], str]]:
    """What `check_image` said of every image. Raises DataError at the first whose size is not the first one's, unless crops are
    taken."""
    result = []
    for image, about in zip(images, checked, strict=True):
        result.append(about)
        if about[0] != result[0][0] and crop is None:
            raise DataError(f"{image.place}: {pixels(about[0])}, but {images[0].place} has {pixels(result[0][0])}; take "
                            "centre crops of one size with `--crop SIZE`")
    return result


def pixels(size: Sequence[int]) -> str:
    return "{} x {} pixels (height x width)".format(*size)
