"""How fast images are drawn on the device at hand: `restok bench sampling`. The weights are random, and the head's too, so that
every token has its chance."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from restok import config
from restok.distributed import device, peak_memory
from restok.generator.model import HAR
from restok.generator.sampling import generate
from restok.stages.bench.peaks import operations, share_of_peak
from restok.stages.bench.timing import machine, report, require_positive, short, time_runs
from restok.stages.sampler import Drawing
from restok.tokenizer.model import ResTok

GUIDED = config.Guidance(schedule="linear", scale=3.75)     # which scale does not matter to the speed
SAMPLES, BATCHES = 50_000, 4                                # of an evaluation; that are drawn at once, so that they overlap
log = logging.getLogger("restok")


class Part(NamedTuple):
    """What is timed. `run(size)` draws or decodes images so many at a time, in `BATCHES` batches where they overlap."""

    case: str                       # generator, decoder, or both: until the images are on the host
    steps: int | None               # of the generator
    guided: bool | None
    run: Callable[[int], Callable[[], object]]
    once: Callable[[], object]      # the same work for one image, whose operations are counted: a graph's replay shows none
    overlaps: bool = False


def benchmark(params: config.Params, largest: int, repeats: int, out: Path) -> list[dict]:
    """Time the generator, the decoder and both together, for each number of steps, with guidance and without: one image alone,
    then batches of 2, 4, 8, ... as far as `largest` and memory go. Prints a table, writes the rows as JSON and returns them.

    A row: case, steps, guided, dtype, latency (seconds of one image alone), batch_size (that of the most images a second),
    seconds (of such a batch), images_per_second, memory_gb (the peak), gigaflop_per_image, mfu (their share of the device's
    peak) and limit (images a second at that peak; both null where it is not known), repeats, device, threads, torch. Seconds
    are medians. Raises ConfigError for a batch size or a number of repeats below 1.
    """
    require_positive(batch_size=largest, repeats=repeats)
    torch.manual_seed(params.seed)
    rows = []
    for part in _parts(params, largest, device()):
        row = _row(part, params.sampling.precision, largest, repeats)
        log.info("bench: %s, %s steps: %s images/s", row["case"], row["steps"], short(row["images_per_second"]))
        rows.append(row)
    cells = [(row["case"], str(row["steps"] or ""), {True: "yes", False: "no", None: ""}[row["guided"]], 1e3 * row["latency"],
              str(row["batch_size"]), row["images_per_second"], SAMPLES / row["images_per_second"] / 60, row["memory_gb"],
              *(("", "") if row["mfu"] is None else (f"{row['limit']:.0f}", f"{row['mfu']:.1%}"))) for row in rows]
    report(rows, out, "{device}, {threads} threads, {dtype}, torch {torch}",
           ("case", "steps", "guided", "ms, one image", "best batch", "images/s", f"minutes for {SAMPLES:,}", "GB",
            "limit, images/s", "MFU"), cells)
    return rows


def _parts(params: config.Params, largest: int, on: torch.device) -> Iterator[Part]:
    how = params.sampling.model_copy(update={"class_cache": "kept"})
    tokenizer = ResTok(params.tokenizer).to(on).eval()
    labels = np.arange(BATCHES * largest) % params.generator.classes
    codes = torch.randint(params.tokenizer.codebook_size, (largest, params.tokenizer.latents), device=on)
    for ntp in dict.fromkeys([params.generator.ntp, 1, "all"]):
        generator = HAR(params.generator.model_copy(update={"ntp": ntp}))
        torch.nn.init.normal_(generator.head.weight, std=0.02)
        drawing = Drawing(tokenizer, generator.to(on).eval(), how)
        steps = len(generator.config.groups)
        for guidance in (GUIDED, None):
            one = partial(generate, drawing.generator, torch.zeros(1, dtype=torch.int64), guidance)
            yield Part("generator", steps, guidance is not None, partial(_codes, drawing, guidance, labels), one)
            yield Part("both", steps, guidance is not None, partial(_images, drawing, guidance, labels),
                       lambda one=one: tokenizer.decode(one()), overlaps=True)
        drawing.steps = None                # their memory, before the next model's
    yield Part("decoder", None, None, partial(_decoded, drawing, codes), lambda: tokenizer.decode(codes[:1]))


def _codes(drawing: Drawing, guidance: config.Guidance | None, labels: np.ndarray, size: int) -> Callable[[], object]:
    steps, classes = drawing.steps_of(guidance, size), torch.from_numpy(labels[:size])
    return lambda: steps(classes)


def _images(drawing: Drawing, guidance: config.Guidance | None, labels: np.ndarray, size: int) -> Callable[[], object]:
    drawing.sampling, drawing.steps = drawing.sampling.model_copy(update={"batch_size": size}), None     # not another size's
    count = size if size == 1 else BATCHES * size
    return lambda: list(drawing.batches(guidance, labels[:count], 0, size))


def _decoded(drawing: Drawing, codes: torch.Tensor, size: int) -> Callable[[], object]:
    sound = torch.ones(1, dtype=torch.bool, device=codes.device)
    return lambda: drawing.decoded(codes[:size], sound)


def _row(part: Part, dtype: str, largest: int, repeats: int) -> dict:
    on, name = device(), machine()["device"]
    timed, work = [], operations(part.once)
    for size in takewhile(lambda size: size <= largest, (2**i for i in count())):
        peak_memory(on, forget=True)
        try:
            seconds = median(time_runs(part.run(size), repeats)) / (BATCHES if part.overlaps and size > 1 else 1)
        except torch.OutOfMemoryError:
            if not timed:
                raise
            break
        timed.append({"batch_size": size, "seconds": seconds, "images_per_second": size / seconds,
                      "memory_gb": peak_memory(on) / 1e9})
    if on.type == "cuda":
        torch.cuda.empty_cache()            # of what did not fit
    best = max(timed, key=lambda row: row["images_per_second"])
    of_one = share_of_peak(work, dtype, name)
    return {"case": part.case, "steps": part.steps, "guided": part.guided, "dtype": dtype, "latency": timed[0]["seconds"],
            **best, "gigaflop_per_image": work / 1e9, "mfu": of_one and of_one * best["images_per_second"],
            "limit": of_one and 1 / of_one, "repeats": repeats, **machine()}
