"""The packed store of codes: where tokenizer and generator meet.

A folder of codes.npy (uint16, images x crops x tokens, memory-mapped), labels.npy (int64, one an image) and manifest.json.
"""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int

from restok.errors import RestokError
from restok.experiments.records import Codes
from restok.files import atomic_folder, require_no_pipe, sha256_file, write_json
from restok.files.artifact import MANIFEST
from restok.files.loading import load_record

LARGEST_CODEBOOK = 2 ** 16               # what uint16 can number


class CodesError(RestokError):
    """Codes that cannot be stored or used; the message names the folder and the remedy."""


class CodeStore:
    """A store opened for random access: `codes` (uint16, memory-mapped), `labels` (int64), `manifest`.

    Raises CodesError where a file is missing or damaged, or disagrees with the manifest, and where another tokenizer than that
    of sha256 `tokenizer` made it: its numbers would mean other codebook entries.
    """

    codes: Int[np.ndarray, "images crops n"]
    labels: Int[np.ndarray, " images"]

    def __init__(self, folder: str | Path, tokenizer: str | None = None):
        self.folder = Path(folder)
        self.manifest = load_record(self.folder / MANIFEST, Codes, lambda what: self._broken(f"{MANIFEST}: {what}"))
        shape = tuple(self.manifest[key] for key in ("images", "crops", "tokens"))
        try:
            self.codes, labels = (_mapped(self.folder / name) for name in ("codes.npy", "labels.npy"))
            self.labels = np.array(labels)
        except (OSError, TypeError, ValueError, EOFError) as error:
            raise self._broken(f"{type(error).__name__}: {error}") from None
        if (self.codes.shape, self.codes.dtype, self.labels.shape) != (shape, np.uint16, shape[:1]):
            raise CodesError(f"{self.folder}: codes of {self.codes.dtype} {self.codes.shape} with labels {self.labels.shape}, "
                             f"but the manifest says uint16 {shape}; run `restok encode` to write it again")
        classes, made_by = self.manifest["classes"], self.manifest["tokenizer"]
        if self.labels.dtype != np.int64 or self.labels.min() < 0 or self.labels.max() >= classes:
            raise self._broken(f"labels of {self.labels.dtype} from {self.labels.min()} to {self.labels.max()}, of {classes} "
                               "classes")
        if tokenizer is not None and made_by != tokenizer:
            raise CodesError(f"{folder}: its codes were made by tokenizer {made_by}, not by {tokenizer}; "
                             f"run `restok encode` with this tokenizer, or use the tokenizer that made them")

    def __len__(self) -> int:
        return len(self.labels)

    def _broken(self, what: str) -> CodesError:
        return CodesError(f"{self.folder}: not a whole code store ({what}); run `restok encode` to write it again")


def _mapped(path: Path) -> np.ndarray:
    require_no_pipe(path)
    return np.load(path, mmap_mode="r")


def write_codes(folder: str | Path, batches: Iterable[tuple[Int[np.ndarray, "b crops n"], Int[np.ndarray, " b"]]], count: int,
                crops: int, tokens: int, codebook_size: int, classes: int, tokenizer: str, dataset: str) -> dict:
    """A store that appears whole or not at all. Returns its manifest. Arguments and errors are those of `fill_store`."""
    with atomic_folder(folder) as partial:
        manifest = fill_store(partial, batches, count, crops, tokens, codebook_size, classes, tokenizer, dataset)
        write_json(partial / MANIFEST, manifest)
    return manifest


def fill_store(folder: Path, batches: Iterable[tuple[Int[np.ndarray, "b crops n"], Int[np.ndarray, " b"]]], count: int,
               crops: int, tokens: int, codebook_size: int, classes: int, tokenizer: str, dataset: str) -> dict:
    """Stream batches of (codes, labels), arrays or tensors in main memory, into a folder.

    count: images expected; tokenizer: sha256 of its weights; dataset: the split's digest. Returns what the manifest is to say.
    Raises CodesError on a codebook above 65,536, on codes out of range or misshapen, on more or fewer images than `count`.
    """
    if codebook_size > LARGEST_CODEBOOK:
        raise CodesError(f"codes: a codebook of {codebook_size} entries does not fit the store's 16 bits; "
                         f"set tokenizer.codebook_size to at most {LARGEST_CODEBOOK}")
    manifest = {"images": count, "crops": crops, "tokens": tokens, "codebook_size": codebook_size, "classes": classes,
                "tokenizer": tokenizer, "dataset": dataset}
    with (_array(folder / "codes.npy", np.uint16, (count, crops, tokens)) as packed,
          _array(folder / "labels.npy", np.int64, (count,)) as labels):
        done = 0
        for batch, batch_labels in batches:
            batch, batch_labels = np.asarray(batch), np.asarray(batch_labels)
            _check(batch, batch_labels, crops, tokens, codebook_size)
            done += len(batch)
            if done > count:
                raise CodesError(f"codes: more than the {count} images expected; encode the split that was counted")
            packed.write(batch.astype(np.uint16).tobytes())
            labels.write(batch_labels.astype(np.int64).tobytes())
    if done != count:
        raise CodesError(f"codes: {done} images arrived, not the {count} expected; encode the whole split")
    return manifest | {"sha256": sha256_file(folder / "codes.npy")}         # other crops make other codes, of the same shape


@contextmanager
def _array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """An npy file of `shape`, to write its values to. Its room is taken first: a full disk is found at once, and by an OSError
    that names the file, where writing a memory map would kill the process."""
    with open(path, "wb") as file:
        try:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape})
            file.flush()
            size = file.tell() + math.prod(shape) * np.dtype(dtype).itemsize
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:                                                           # macOS
                file.truncate(size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        yield file


def _check(codes: np.ndarray, labels: np.ndarray, crops: int, tokens: int, codebook_size: int) -> None:
    if codes.shape != (len(labels), crops, tokens):
        raise CodesError(f"codes: a batch of shape {codes.shape} for {len(labels)} labels; expected "
                         f"({len(labels)}, {crops}, {tokens})")
    if codes.size and not (codes.min() >= 0 and codes.max() < codebook_size):
        raise CodesError(f"codes from {codes.min()} to {codes.max()}, outside a codebook of {codebook_size}")
