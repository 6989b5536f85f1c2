"""scikit-learn's 1,797 digits of 8x8 pixels, enlarged: the demo's images, which need no download."""

import io
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from restok import config
from restok.data.sources.base import SPLITS, Found, Source, alike


def digits(data: config.Data, image_size: int, chosen: tuple[str, ...] | None) -> dict[str, Source]:
    """One fixed split, a fifth of each class for validation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    loaded = load_digits()
    classes = tuple(str(name) for name in loaded.target_names)
    parts = train_test_split(np.arange(len(loaded.target)), test_size=0.2, stratify=loaded.target, random_state=0)
    splits = {}
    for split, part in zip(SPLITS, parts, strict=True):
        images = [_png(loaded.images[i], image_size) for i in sorted(part)]
        splits[split] = _source(f"digits/{split}", classes, images, [int(loaded.target[i]) for i in sorted(part)])
    return splits


def _source(name: str, classes: tuple[str, ...], images: list[bytes], labels: list[int]) -> Source:
    size = sum(map(len, images))
    pieces = alike(len(images), size / len(images))

    def read(piece: int) -> Iterator[Found]:
        for i in pieces[piece]:
            yield Found(f"{i:04}", f"{name}/{i:04}", name, labels[i], classes[labels[i]], partial(images.__getitem__, i))

    return Source(name, classes, True, len(pieces), tuple(map(len, pieces)), None, size,
                  lambda piece: (images[i] for i in pieces[piece]), read)


def _png(digit: np.ndarray, size: int) -> bytes:
    """A digit of grey levels 0..16 as an RGB PNG of size x size."""
    grey = Image.fromarray((digit * (255 / 16)).astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(grey).clip(0, 255).round().astype(np.uint8)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
