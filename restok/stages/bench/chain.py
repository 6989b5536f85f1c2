"""How long each step of the chain takes on the device at hand. Speed does not depend on training, so the weights are random."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from restok import config
from restok.data.codes import CodeStore, write_codes
from restok.data.loader import code_batches
from restok.distributed import device, peak_memory
from restok.generator.model import HAR
from restok.generator.sampling import generate
from restok.networks.classifier import SmallClassifier
from restok.stages.bench.peaks import operations, share_of_peak
from restok.stages.bench.timing import machine, report, require_positive, time_runs
from restok.tokenizer.model import ResTok
from restok.tokenizer.nested_dropout import draw_keep
from restok.training.compute import autocast
from restok.training.generator import GeneratorJob
from restok.training.optim import Updater
from restok.training.parallel import step_generator
from restok.training.tokenizer import TokenizerJob

log = logging.getLogger("restok")


class Case(NamedTuple):
    """What is timed: `run` handles one batch, with matrix products in `dtype`."""

    name: str
    dtype: str
    run: Callable[[], object]


def benchmark(params: config.Params, batch_size: int, repeats: int, out_json: str | Path) -> list[dict]:
    """Time every case `repeats` times on batches of `batch_size`, print a table, write the rows as JSON and return them.

    A row: case, seconds (the median of a batch), spread (between the quartiles, in seconds), images_per_second, batch_size,
    repeats, dtype, memory_gb (the peak), gigaflop_per_image, mfu (their share of the device's peak; null where that is not
    known), device, threads, torch. Raises ConfigError for a batch size or a number of repeats below 1.
    """
    require_positive(batch_size=batch_size, repeats=repeats)
    torch.manual_seed(params.seed)
    with tempfile.TemporaryDirectory() as scratch:
        rows = list(timed_cases(params, batch_size, repeats, Path(scratch)))
    cells = [(row["case"], row["dtype"], 1e3 * row["seconds"], 1e3 * row["spread"], row["images_per_second"]) for row in rows]
    report(rows, out_json, "{device}, {threads} threads, batches of {batch_size}, torch {torch}",
           ("case", "dtype", "ms a batch", "spread", "images/s"), cells)
    return rows


def timed_cases(params: config.Params, batch_size: int, repeats: int, scratch: Path,
                training: bool = True) -> Iterator[dict]:
    """The rows of `benchmark`, one after the other, those of training steps where they are wanted."""
    for case in _cases(params, batch_size, device(), scratch, training):
        log.info("bench: %s", case.name)
        peak_memory(device(), forget=True)
        low, median, high = np.percentile(time_runs(case.run, repeats), [25, 50, 75]).tolist()
        memory, work = peak_memory(device()), operations(case.run)
        yield {"case": case.name, "seconds": median, "spread": high - low, "images_per_second": batch_size / median,
               "batch_size": batch_size, "repeats": repeats, "dtype": case.dtype, "memory_gb": memory / 1e9,
               "gigaflop_per_image": work / batch_size / 1e9,
               "mfu": share_of_peak(work / median, case.dtype, machine()["device"]), **machine()}
        del case                 # and its model, before the next is built


def _cases(params: config.Params, batch_size: int, on: torch.device, scratch: Path,
           training: bool) -> Iterator[Case]:
    side, rng, objective = params.tokenizer.image_size, step_generator(params.seed, 0), params.objective
    images = torch.rand(batch_size, 3, side, side, generator=rng).to(on)
    labels = torch.arange(batch_size) % params.generator.classes
    yield from _tokenizer_cases(params, images, on)
    networks = {part.network for part in (objective.alignment, objective.perceptual_network, objective.discriminator)}
    if training and networks == {"digits"}:
        yield _whole_tokenizer_step(params, images, on, scratch / "classifier")
    if training:
        yield _generator_step(params, labels, on)
    for ntp in dict.fromkeys([params.generator.ntp, "all"]):
        yield _sampling(params, ntp, labels, on)
    yield _code_loading(params, batch_size, scratch / "codes")


def _tokenizer_cases(params: config.Params, images: torch.Tensor, on: torch.device) -> Iterator[Case]:
    training, tokenizer = params.tokenizer_training, ResTok(params.tokenizer).to(on)
    update = Updater([tokenizer], training.optimizer, training.clip, training.precision, max(training.checkpoints.values()))
    keep = draw_keep(params.tokenizer, len(images), step_generator(params.seed, 0))

    def forward(gradients: bool) -> torch.Tensor:
        out = {}
        with torch.set_grad_enabled(gradients), autocast(training.precision, on):
            reconstruction = tokenizer(images, keep, out=out)
        return F.mse_loss(reconstruction.float(), images) + out["quantized"].codebook_loss

    yield Case("tokenizer forward", training.precision, lambda: forward(gradients=False))
    def change() -> None:
        update.backward(forward(gradients=True))
        update.step(0)

    yield Case("tokenizer update, alone", training.precision, change)
    tokenizer.eval()
    codes = tokenizer.encode(images)
    yield Case("encode", "fp32", lambda: tokenizer.encode(images))
    yield Case("decode", "fp32", lambda: tokenizer.decode(codes))


def _whole_tokenizer_step(params: config.Params, images: torch.Tensor, on: torch.device, classifier: Path) -> Case:
    """Both updates of Eq. 4, at the discriminator's first step."""
    SmallClassifier(params.generator.classes, params.classifier.channels).save(classifier)
    job, steps = TokenizerJob(params, classifier, on), count(params.objective.discriminator.start)
    return Case("tokenizer training step", params.tokenizer_training.precision, lambda: job.step((images, None), next(steps)))


def _generator_step(params: config.Params, labels: torch.Tensor, on: torch.device) -> Case:
    job, steps, rng = GeneratorJob(params, on), count(), step_generator(params.seed, 0)
    codes = torch.randint(params.generator.codebook_size, (len(labels), params.generator.tokens), generator=rng)
    return Case("generator training step", params.generator_training.precision, lambda: job.step((codes, labels), next(steps)))


def _sampling(params: config.Params, ntp: int | str, labels: torch.Tensor, on: torch.device) -> Case:
    generator, sampling = HAR(params.generator.model_copy(update={"ntp": ntp})).to(on).eval(), params.sampling
    draw = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p, "seed": params.seed}
    name = f"generate, {len(generator.config.groups)} steps (ntp {ntp})"
    return Case(name, "fp32", lambda: generate(generator, labels, **draw))


def _code_loading(params: config.Params, batch_size: int, folder: Path) -> Case:
    """Batches from a store of ten crops an image; random codes load as fast as real ones."""
    settings, images, crops, rng = params.generator, 10 * batch_size, 10, np.random.default_rng(params.seed)
    codes = rng.integers(settings.codebook_size, size=(images, crops, settings.tokens))
    labels = rng.integers(settings.classes, size=images)
    write_codes(folder, [(codes, labels)], *codes.shape, settings.codebook_size, settings.classes, "random", "random")
    batches = code_batches(CodeStore(folder), batch_size, params.seed)
    return Case("code loading", "uint16", lambda: next(batches))
