"""Images out of a generator and its tokenizer, batch after batch."""

import math
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from restok import config
from restok.compat import losing_class
from restok.data.transforms import eight_bits, require_pixels
from restok.distributed import device
from restok.experiments.records import MadeFrom
from restok.files import sha256_file
from restok.files.artifact import digest_of
from restok.files.loading import load_model
from restok.generator.model import HAR
from restok.generator.sampling import Steps, require_sound
from restok.networks.saved import WeightsError
from restok.nn.finite import is_finite
from restok.tokenizer.model import ResTok
from restok.training.compute import autocast, float32_products
from restok.weights import load_generator, load_tokenizer


def pair(tokenizer: Path, generator: Path) -> dict[str, str]:
    """The sha256 of a generator and of the tokenizer that its codes came from. Raises WeightsError for another tokenizer, or
    where there are no models."""
    for folder in (tokenizer, generator):
        if not (folder / "model.safetensors").is_file():
            raise WeightsError(f"{folder}: no model here (model.safetensors, config.json); train one, or `restok convert` one")
    trained_on, given = load_model(generator / "metrics.json", MadeFrom).tokenizer, sha256_file(tokenizer / "model.safetensors")
    if trained_on != given:
        raise WeightsError(f"{generator}: trained on codes of tokenizer {trained_on[:12]}, but {tokenizer} is "
                           f"{given[:12]}; train it on this tokenizer's codes (`restok encode`, `restok train-generator`)")
    return {"tokenizer": given, "generator": sha256_file(generator / "model.safetensors")}


class Drawn(NamedTuple):
    """Images that may still be on their way from the device."""

    pictures: UInt8[Tensor, "b h w c"]
    sound: Bool[Tensor, " flags"]                # of each step's logits, then of the images
    ready: torch.cuda.Event | None = None

    def images(self) -> UInt8[np.ndarray, "b h w c"]:
        """Waits for them. Raises NotFiniteError for logits and ValueError for images that are not finite."""
        if self.ready:
            self.ready.synchronize()
        require_sound(self.sound[:-1])
        require_pixels(bool(self.sound[-1]))
        return self.pictures.numpy()


class Drawing:
    """How a generator and the tokenizer of its codes, on one device, draw images. The generator's weights are brought to the
    precision that `sampling` names.

    On a GPU a batch is decoded, in a stream of its own, while the codes of the next one are drawn.
    """

    def __init__(self, tokenizer: ResTok, generator: HAR, sampling: config.Sampling):
        if sampling.precision == "bf16":
            generator = generator.to(torch.bfloat16)
        self.tokenizer, self.sampling = tokenizer, sampling
        self.generator = generator if sampling.class_cache == "kept" else losing_class(generator)
        self.beside = torch.cuda.Stream(generator.head.weight.device) if generator.head.weight.is_cuda else None
        self.steps: tuple[config.Guidance | None, Steps] | None = None         # the last ones, and by which guidance

    @torch.inference_mode()
    def batches(self, guidance: config.Guidance | None, labels: Int[np.ndarray, " n"], seed: int, size: int, start: int = 0,
                stop: int | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "b h w c"]]]:
        """(index of the first image, images), one image a label, `size` at a time, for labels start, ... before `stop` (None:
        all), drawn in equal batches of at most `sampling.batch_size`. Image i depends on its label and on (seed, i) alone.

        Raises NotFiniteError and ValueError for what is not finite.
        """
        stop = len(labels) if stop is None else stop
        firsts = [(first, min(first + size, stop)) for first in range(start, stop, size)]
        parts = [(first, last, int(part[0]), int(part[-1]) + 1) for first, last in firsts for part in np.array_split(
            np.arange(first, last), math.ceil((last - first) / self.sampling.batch_size))]       # the larger ones first
        drawn = (self._drawn(guidance, labels[part:end], seed, part) for *_, part, end in parts)
        done = []
        for (first, last, _, end), (ours, _) in zip(parts, pairwise(chain(drawn, [None])), strict=True):
            done.append(ours.images())                               # waited for when the next are being drawn
            if end == last:
                yield first, np.concatenate(done)
                done = []

    def steps_of(self, guidance: config.Guidance | None, count: int) -> Steps:
        """On a GPU those of the last batch, where they are large enough: their graph is captured once."""
        if self.steps is None or self.steps[0] != guidance or self.steps[1].images < count or (
                self.beside is None and self.steps[1].images != count):
            if self.beside:
                torch.cuda.current_stream().synchronize()                 # a graph that still runs is not to be dropped
            how, self.steps = self.sampling, None                         # its memory first
            steps = Steps(self.generator, count, guidance, how.temperature, how.top_k, how.top_p)
            if self.beside:
                steps.capture()
            self.steps = guidance, steps
        return self.steps[1]

    def decoded(self, codes: Int[Tensor, "b n"], sound: Bool[Tensor, " steps"]) -> Drawn:
        """Images of codes, on their way to the host, and whether each step, and then the images, were finite."""
        with float32_products(tf32=False), autocast(self.sampling.precision, codes.device):
            images = self.tokenizer.decode(codes)
        flags, pictures = torch.cat([sound, is_finite(images)[None]]), eight_bits(images, self.sampling.rounding)
        return Drawn(pictures.to("cpu", non_blocking=True), flags.to("cpu", non_blocking=True))

    def _drawn(self, guidance: config.Guidance | None, labels: Int[np.ndarray, " n"], seed: int, offset: int) -> Drawn:
        codes, sound = self.steps_of(guidance, len(labels))(torch.from_numpy(labels), seed, offset)
        if self.beside is None:
            return self.decoded(codes, sound)
        self.beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.beside):
            codes.record_stream(self.beside)
            sound.record_stream(self.beside)
            return self.decoded(codes, sound)._replace(ready=self.beside.record_event())


class Sampler(Drawing):
    """A generator with the tokenizer that its codes came from, of files. Raises WeightsError for another tokenizer."""

    def __init__(self, tokenizer: Path, generator: Path, sampling: config.Sampling):
        self.name, self.digests = generator.as_posix(), pair(tokenizer, generator)
        self.paths = {"tokenizer": tokenizer, "generator": generator}
        super().__init__(load_tokenizer(tokenizer).to(device()), load_generator(generator).to(device()), sampling)


def guided(guidance: config.Guidance | None) -> dict[str, str | None]:
    """The setting as an input: what is chosen by a search is known by the choice alone."""
    return {"guidance": guidance and digest_of(guidance.model_dump(mode="json"))}
