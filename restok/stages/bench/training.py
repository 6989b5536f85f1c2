"""What a training takes on the device at hand: `restok bench --all`, for each micro-batch that fits, compiled and not.

Frozen networks have random weights and images are noise, so that nothing is needed.
"""

import gc
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restok import config
from restok.config.load import ConfigError
from restok.data.loader import batches
from restok.data.prepare import prepare
from restok.data.sources import SPLITS
from restok.data.table import Split, open_split
from restok.distributed import device, peak_memory
from restok.files import atomic_file
from restok.files.outputs import require_writable
from restok.networks.classifier import SmallClassifier
from restok.networks.pretrained import random_weights
from restok.stages.bench.chain import timed_cases
from restok.stages.bench.peaks import operations, ran_out, share_of_peak
from restok.stages.bench.timing import machine, report, require_positive, short, time_runs
from restok.training.compute import float32_products
from restok.training.generator import GeneratorJob
from restok.training.loop import Job
from restok.training.tokenizer import TokenizerJob

PIXELS, IMAGES = (500, 375), 64          # of the JPEGs: ImageNet's usual size
LEAST = 4                                # the smallest micro-batch, which the others double
BEGUN_WITHIN = 400                       # seconds: what would begin later is left out
COLUMNS = {"case": "case", "micro_batch": "micro-batch", "compiled": "compiled", "dtype": "dtype", "seconds": "s a batch",
           "images_per_second": "images/s", "memory_gb": "GB", "gigaflop_per_image": "GFLOP/image", "mfu": "MFU",
           "data_seconds": "s waiting"}
log = logging.getLogger("restok")


class Trained(NamedTuple):
    """A training and how to feed it."""

    job: Job
    settings: config.Training
    batch: tuple[Tensor, Tensor]         # as large as any
    steps: Iterator[int]                 # from the first one in which everything is active

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        with float32_products(self.settings.tf32):
            self.job.step(batch, next(self.steps))

    def of(self, size: int) -> Callable[[], None]:
        """A step of one micro-batch of this size."""
        return lambda: self.step(tuple(part[:size] for part in self.batch))


def benchmark(params: config.Params, batch_size: int, repeats: int, out: Path, within: float = BEGUN_WITHIN) -> list[dict]:
    """Time the loading of images, both trainings, and each step of the chain on batches of `batch_size`; write the rows as
    JSON, and beside it, as .md, a section for docs/benchmarks.md. What would begin `within` seconds from now is left out.

    A row: case, micro_batch, compiled, seconds (the median of a batch), images_per_second, memory_gb (the peak), dtype,
    gigaflop_per_image, mfu (share of the device's peak, null where it is not known), data_seconds (of a batch, waiting for
    images; null where none are loaded); repeats, device, threads, torch. Raises ConfigError for sizes below 1 and for an `out`
    that is the section's own place, FileError where that is not to be written.
    """
    require_positive(batch_size=batch_size, repeats=repeats)
    place = Path(out).with_suffix(".md")
    if place == Path(out):
        raise ConfigError(f"{out}: the section's own place; name a .json for the rows")
    require_writable(place, folder=False, kinds=(".md",))
    torch.manual_seed(params.seed)
    rows, end, whole = [], time.monotonic() + within, True
    with tempfile.TemporaryDirectory() as scratch, random_weights():
        for row in _rows(params, batch_size, repeats, Path(scratch)):
            log.info("bench: %s, %s: %s images/s", row["case"], row["micro_batch"], short(row["images_per_second"]))
            rows.append(dict.fromkeys(COLUMNS) | row | {"repeats": repeats} | machine())
            if time.monotonic() > end:
                whole = False
                break
    text = section(rows, whole)
    with atomic_file(place) as partial:
        partial.write_text(text, "utf-8")
    shown = {name: COLUMNS[name] for name in ("case", "micro_batch", "compiled", "images_per_second", "memory_gb", "mfu")}
    report(rows, out, "{device}, {threads} threads, torch {torch}", tuple(shown.values()), [cells(row, shown) for row in rows])
    return rows


def _rows(params: config.Params, batch_size: int, repeats: int, scratch: Path) -> Iterator[dict]:
    split = jpegs(params, scratch)
    yield loading(params, split, repeats)
    classifier = None
    if params.classifier:
        classifier = scratch / "classifier"
        SmallClassifier(params.generator.classes, params.classifier.channels).save(classifier)
    yield from _training("tokenizer", params, repeats, lambda changed: tokenizer_training(changed, classifier), split)
    yield from _training("generator", params, repeats, generator_training)
    for row in timed_cases(params, batch_size, repeats, scratch, training=False):
        yield row | {"micro_batch": row["batch_size"], "compiled": False}


def tokenizer_training(params: config.Params, classifier: Path | None) -> Trained:
    """On noise, with the discriminator."""
    settings, side = params.tokenizer_training, params.tokenizer.image_size
    images = torch.rand(settings.batch_size, 3, side, side), torch.zeros(settings.batch_size, dtype=torch.int64)
    first = max(params.objective.discriminator.start, 1)
    return Trained(TokenizerJob(params, classifier, device()), settings, images, count(first))


def generator_training(params: config.Params) -> Trained:
    """On random codes."""
    settings, shape = params.generator_training, params.generator
    codes = torch.randint(shape.codebook_size, (settings.batch_size, shape.tokens))
    labels = torch.arange(settings.batch_size) % shape.classes
    return Trained(GeneratorJob(params, device()), settings, (codes, labels), count(1))


def _training(kind: str, params: config.Params, repeats: int, build: Callable[[config.Params], Trained],
              split: Split | None = None) -> Iterator[dict]:
    """Each micro-batch, the largest with images from files, and, from the largest on, each compiled."""
    key = f"{kind}_training"
    settings = getattr(params, key)
    kind_of_products = "tf32" if settings.tf32 and settings.precision == "fp32" else settings.precision
    sizes, fitting, work = [LEAST * 2**i for i in range(20) if LEAST * 2**i <= settings.batch_size], [], 0

    def built(compiled: bool) -> Trained:
        gc.collect()                                         # the one before
        changed = settings.model_copy(update={"micro_batch": None, "compile": compiled})
        return build(params.model_copy(update={key: changed}))

    def row(trained: Trained, size: int) -> dict:
        peak_memory(trained.job.on, forget=True)
        seconds = median(time_runs(trained.of(size), repeats))
        return {"case": f"{kind} training step", "micro_batch": size, "compiled": trained.settings.compile,
                "dtype": settings.precision, "seconds": seconds, "images_per_second": size / seconds,
                "memory_gb": peak_memory(trained.job.on) / 1e9, "gigaflop_per_image": work / 1e9,
                "mfu": share_of_peak(size / seconds * work, kind_of_products, machine()["device"])}

    trained = built(compiled=False)
    for size in sizes or [settings.batch_size]:
        if ran_out(trained.of(size)):
            break
        work = work or operations(trained.of(size)) // size
        fitting.append(size)
        yield row(trained, size)
    if split and fitting:
        yield row(trained, fitting[-1]) | _from_files(trained, fitting[-1], repeats, split, params)
    del trained
    trained = built(compiled=True)
    for size in reversed(fitting):
        if not ran_out(trained.of(size)):
            yield row(trained, size)


def _from_files(trained: Trained, size: int, repeats: int, split: Split, params: config.Params) -> dict:
    source, waited = batches(split, params.data, params.tokenizer.image_size, size, params.seed), []

    def step() -> None:
        began = time.perf_counter()
        batch = next(source)
        waited.append(time.perf_counter() - began)
        trained.step(batch)

    seconds = median(time_runs(step, repeats))
    return {"case": f"tokenizer training step, {params.data.workers} workers", "seconds": seconds,
            "images_per_second": size / seconds, "data_seconds": median(waited[-repeats:]), "mfu": None}


def jpegs(params: config.Params, scratch: Path) -> Split:
    """A prepared split of JPEGs that are as large as photographs."""
    rng = np.random.default_rng(params.seed)
    for name in SPLITS:
        folder = scratch / "images" / name / "noise"
        folder.mkdir(parents=True)
        for number in range(IMAGES if name == "train" else 1):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(PIXELS, Image.Resampling.BICUBIC)
            grain = rng.normal(0, 12, (*PIXELS[::-1], 3))
            pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    data = params.data.model_copy(update={"source": "imagefolder", "path": str(scratch / "images"), "train": SPLITS[0],
                                          "validation": SPLITS[1], "classes": None})
    prepare(data, params.tokenizer.image_size, scratch / "data")
    return open_split(scratch / "data", SPLITS[0], data.decoder)


def loading(params: config.Params, split: Split, repeats: int) -> dict:
    """Decoding, cropping and resizing in this process: one core."""
    alone = params.data.model_copy(update={"workers": 0})
    source = batches(split, alone, params.tokenizer.image_size, IMAGES, params.seed)
    seconds = median(time_runs(lambda: next(source), repeats))
    return {"case": f"image loading, one core, {PIXELS[0]} x {PIXELS[1]} JPEG", "micro_batch": IMAGES, "dtype": "uint8",
            "seconds": seconds, "images_per_second": IMAGES / seconds}


def cells(row: dict, names: Iterable[str]) -> Sequence[str]:
    """A row's as text; what is not measured is empty, a share in percent."""
    def text(name: str, value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if name == "mfu":
            return f"{value:.1%}"
        return short(value) if isinstance(value, float) else str(value)

    return [text(name, row[name]) for name in names]


def section(rows: Sequence[dict], whole: bool) -> str:
    """What docs/benchmarks.md says of these rows, in Markdown."""
    about = rows[0]
    lines = [f"## {about['device']}, {date.today()}", "",
             f"`restok bench --all`, {about['threads']} threads, torch {about['torch']}. Networks that are frozen have random",
             "weights, images are noise. A training step is one micro-batch and one update. MFU is the share of the device's",
             "peak of dense products; GFLOP are of products, convolutions and attention, those of frozen networks too.", "",
             f"| {' | '.join(COLUMNS.values())} |", "|---|" + "---:|" * (len(COLUMNS) - 1),
             *(f"| {' | '.join(cells(row, COLUMNS))} |" for row in rows)]
    if not whole:
        lines += ["", f"Left out, for lack of time: what comes after {rows[-1]['case']}, {rows[-1]['micro_batch']}."]
    return "\n".join(lines) + "\n"
