"""Batches in an exact order: what step t sees is a function of (seed, t), whatever the workers, and wherever a run resumes.

Positions 0, 1, 2, ... run through one permutation of the images after another, an epoch each; batch t holds positions
t * batch_size and on, across the ends of epochs.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from restok import config
from restok.data.codes import CodeStore
from restok.data.reading import DataError
from restok.data.table import Split
from restok.data.transforms import Pixels, center_crop, crops, random_crop, to_tensor
from restok.parts import WHOLE, Shard
from restok.signals import leave_to_parent

# Told apart from the position's own stream, default_rng((seed, position)).
_ORDER, _CROPS = 1, 2

ImageBatches = Iterator[tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]]
CodeBatches = Iterator[tuple[Int[Tensor, "b n"], Int[Tensor, " b"]]]
Indices = Int[np.ndarray, " b"]


def order(seed: int, epoch: int, count: int) -> Int[np.ndarray, " count"]:
    """The permutation of 0 .. count - 1 in which an epoch visits the images; a pure function of its arguments."""
    return np.random.default_rng((seed, epoch, _ORDER)).permutation(count)


def batches(split: Split, data: config.Data, image_size: int, batch_size: int, seed: int, start_step: int = 0,
            share: Shard = WHOLE) -> ImageBatches:
    """Endless training batches from step `start_step` on, or a share of each: (images b c h w in [0, 1], labels b).

    The view of position p is drawn from default_rng((seed, p)) alone.
    """
    view = partial(_training_view, size=image_size, data=data, seed=seed)
    steps = _steps(len(split), batch_size, seed, start_step, share)
    return _loader(split, view, (list(zip(*map(np.ndarray.tolist, step), strict=True)) for step in steps), data.workers)


def code_batches(store: CodeStore, batch_size: int, seed: int, start_step: int = 0, share: Shard = WHOLE) -> CodeBatches:
    """Endless batches of codes from step `start_step` on, or a share of each: (codes b n int64, labels b).

    Each image appears once an epoch, as one of its crops, drawn anew.
    """
    count, crops, _ = store.codes.shape
    for images, chosen in crop_visits(count, crops, batch_size, seed, start_step, share):
        yield torch.from_numpy(store.codes[images, chosen].astype(np.int64)), torch.from_numpy(store.labels[images])


def crop_visits(count: int, crops: int, batch_size: int, seed: int, start_step: int = 0,
                share: Shard = WHOLE) -> Iterator[tuple[Indices, Indices]]:
    """Of `code_batches`, the images of each batch, and the crop that is taken of each."""
    crop = lru_cache(maxsize=1)(lambda epoch: np.random.default_rng((seed, epoch, _CROPS)).integers(crops, size=count))
    for images, positions in _steps(count, batch_size, seed, start_step, share):
        yield images, _of_epochs(crop, positions // count, images)


@contextmanager
def lost_readers(data: Path) -> Iterator[None]:
    """Raises DataError, wherever in the block it is found out, where a process that reads images of the folder `data` was
    killed."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        said = str(error).partition(". ")[0]
        raise DataError(f"{data}: a process that read images ended ({said}), because files there were "
                        "cut or lost, or for want of memory: run `restok prepare`, which checks them, or lower data.workers; "
                        "then the same command, which resumes") from None


def evaluation_batches(split: Split, image_size: int, batch_size: int, workers: int = 0) -> ImageBatches:
    """The split once, in its own order, as centre crops: (images b c h w in [0, 1], labels b)."""
    return _once(split, partial(center_crop, size=image_size), batch_size, workers)


def crop_batches(split: Split, image_size: int, codes: config.Codes, workers: int = 0, rows: range | None = None,
                 ) -> ImageBatches:
    """The split once, or some rows of it, in order, every crop of an image after the other: (views (b crops) c h w in [0, 1],
    labels b), of `images_a_batch` images each."""
    return _once(split, partial(crops, size=image_size, codes=codes), images_a_batch(codes), workers, rows)


def images_a_batch(codes: config.Codes) -> int:
    """Of which all crops are encoded at once: about `codes.batch_size` views."""
    return max(1, codes.batch_size // codes.crop_count)


def _once(split: Split, view: Callable, batch_size: int, workers: int, rows: range | None = None) -> ImageBatches:
    rows = range(len(split)) if rows is None else rows
    return _loader(split, view, BatchSampler(((index,) for index in rows), batch_size, drop_last=False), workers)


def _steps(count: int, batch_size: int, seed: int, start: int, share: Shard) -> Iterator[tuple[Indices, Indices]]:
    """A share of the batches from step `start` on, without end, each its images and their positions."""
    permutation = lru_cache(maxsize=1)(lambda epoch: order(seed, epoch, count))
    own = np.arange(*share.bounds(batch_size))
    for step in itertools.count(start):
        positions = step * batch_size + own
        yield _of_epochs(permutation, positions // count, positions % count), positions


def _of_epochs(values: Callable[[int], Indices], epochs: Indices, places: Indices) -> Indices:
    """At each place the value of its epoch."""
    return np.concatenate([values(epoch)[places[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)])


def _training_view(image: Image.Image, position: int, size: int, data: config.Data, seed: int) -> Pixels:
    return random_crop(image, size, data.crop_scale, data.flip, np.random.default_rng((seed, position)))


@dataclass(frozen=True)
class _Views(Dataset):
    """(image, and what else `view` takes) -> (one view of it, or several; label)."""

    split: Split
    view: Callable[..., Pixels | list[Pixels]]

    def __getitem__(self, where: tuple[int, ...]) -> tuple[Pixels | list[Pixels], int]:
        image, label = self.split[where[0]]
        return self.view(image, *where[1:]), label


def _loader(split: Split, view: Callable, steps: Iterable[Sequence], workers: int) -> ImageBatches:
    # Its own generator: a loader otherwise draws from torch's global one, and a resumed run would draw once more.
    return iter(DataLoader(_Views(split, view), batch_sampler=steps, num_workers=workers, collate_fn=_collate,
                           generator=torch.Generator(), pin_memory=torch.cuda.is_available(),
                           worker_init_fn=leave_to_parent))


def _collate(items: list[tuple[Pixels | list[Pixels], int]]) -> tuple[Float[Tensor, "v c h w"], Int[Tensor, " b"]]:
    views, labels = zip(*items, strict=True)
    if isinstance(views[0], list):
        views = [view for image in views for view in image]
    return to_tensor(views), torch.tensor(labels, dtype=torch.int64)
