"""Reading codes as a training does: the packed store beside LlamaGen's two files an image, in turn in one run."""

import gc
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from restok.data.codes import CodeStore, write_codes
from restok.data.loader import CodeBatches, code_batches, crop_visits
from restok.stages.bench.timing import machine, report, require_positive, seconds, short

CROPS, TOKENS, CODEBOOK, CLASSES = 10, 128, 8192, 1000      # the paper's
AT_ONCE = 1000                                              # images that are drawn and written at a time
log = logging.getLogger("restok")
Codes = Iterator[tuple[np.ndarray, np.ndarray]]


def benchmark(images: int, batch_size: int, repeats: int, out: str | Path) -> list[dict]:
    """Time an epoch over random codes in both layouts, from the disk and from memory, print a table, write the rows as JSON and
    return them. Both are written beside `out`, and removed. Raises ConfigError for sizes below 1.

    A row: case, peer, seconds and peer_seconds (medians), samples_per_second of both, disk_bytes of both (that an epoch read
    from a disk), ratio. The last one: bytes and allocated of both, and the ratio of what is allocated. All: device, threads,
    torch, images, batch_size, repeats.
    """
    require_positive(images=images, batch_size=batch_size, repeats=repeats)
    about = machine() | {"images": images, "batch_size": batch_size, "repeats": repeats}
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench.", dir=Path(out).absolute().parent) as scratch:
        store, files = Path(scratch) / "store", Path(scratch) / "files"
        write_codes(store, _codes(images), images, CROPS, TOKENS, CODEBOOK, CLASSES, "random", "random")
        write_files(files, _codes(images))
        os.sync()                                           # only what is on the disk can be dropped from memory
        rows = [_epoch(case, store, files, images, batch_size, repeats) | about for case in ("from the disk", "from memory")]
        rows.append(_bytes(store, files) | about)
    report(rows, out, "{images} images, batches of {batch_size}, one process, torch {torch}",
           ("codes", "against", "packed store", "theirs", "times as good"), map(_cells, rows))
    return rows


def write_files(folder: Path, codes: Codes) -> None:
    """As LlamaGen's extract_codes_c2i.py does: of each image codes/NUMBER.npy (int64, 1 crops n) and labels/NUMBER.npy (1)."""
    number = 0
    for name in ("codes", "labels"):
        (folder / name).mkdir(parents=True)
    for batch, labels in codes:
        for own, label in zip(batch, labels, strict=True):
            np.save(folder / f"codes/{number}.npy", own[None])
            np.save(folder / f"labels/{number}.npy", np.array([label]))
            number += 1


def file_batches(folder: Path, images: int, batch_size: int, seed: int) -> CodeBatches:
    """What `code_batches` gives, read as LlamaGen's dataset does: both files of each image."""
    for batch, chosen in crop_visits(images, CROPS, batch_size, seed):
        codes = [np.load(folder / f"codes/{image}.npy")[0, crop] for image, crop in zip(batch, chosen, strict=True)]
        labels = [np.load(folder / f"labels/{image}.npy")[0] for image in batch]
        yield torch.from_numpy(np.stack(codes)), torch.from_numpy(np.stack(labels))


def _codes(images: int) -> Codes:
    rng = np.random.default_rng(0)
    for first in range(0, images, AT_ONCE):
        count = min(AT_ONCE, images - first)
        yield rng.integers(CODEBOOK, size=(count, CROPS, TOKENS)), rng.integers(CLASSES, size=count)


def _epoch(case: str, store: Path, files: Path, images: int, batch_size: int, repeats: int) -> dict:
    steps = max(1, images // batch_size)
    ways = ((store, lambda: code_batches(CodeStore(store), batch_size, 0)),
            (files, lambda: file_batches(files, images, batch_size, 0)))
    log.info("bench: %s", case)
    taken = [_timed(folder, batches, steps, case == "from the disk") for _ in range(repeats) for folder, batches in ways]
    (ours, read), (theirs, peer_read) = ([median(values) for values in zip(*taken[way::2], strict=True)] for way in (0, 1))
    rates = steps * batch_size / ours, steps * batch_size / theirs
    return {"case": case, "peer": "two npy files an image", "seconds": ours, "peer_seconds": theirs,
            "samples_per_second": rates[0], "peer_samples_per_second": rates[1], "disk_bytes": read,
            "peer_disk_bytes": peer_read, "ratio": rates[0] / rates[1]}


def _timed(folder: Path, batches: Callable[[], CodeBatches], steps: int, cold: bool) -> tuple[float, int]:
    """Seconds, and bytes that came from a disk."""
    gc.collect()                                            # what is still mapped cannot be dropped
    for path in folder.rglob("*.npy") if cold else ():
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    before = _read()

    def epoch() -> None:
        for _ in islice(batches(), steps):
            pass

    return seconds(epoch), _read() - before


def _read() -> int:
    """Bytes that this process has fetched from a disk."""
    return int(re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text("utf-8"), re.MULTILINE)[1])


def _bytes(store: Path, files: Path) -> dict:
    (own, own_blocks), (theirs, peer_blocks) = (_size(folder) for folder in (store, files))
    return {"case": "bytes on the disk", "peer": "two npy files an image", "bytes": own, "peer_bytes": theirs,
            "allocated": own_blocks, "peer_allocated": peer_blocks, "ratio": peer_blocks / own_blocks}


def _size(folder: Path) -> tuple[int, int]:
    """Bytes of all files, and those that they take, with their folders."""
    paths = [folder, *folder.rglob("*")]
    return sum(path.stat().st_size for path in paths if path.is_file()), sum(512 * path.stat().st_blocks for path in paths)


def _cells(row: dict) -> tuple:
    if "bytes" in row:
        values = [f"{row[key] / 1e6:,.0f} MB" for key in ("allocated", "peer_allocated")]
    else:
        values = [f"{short(row[key])}/s" for key in ("samples_per_second", "peer_samples_per_second")]
    return row["case"], row["peer"], *values, row["ratio"]
