"""Codes from classes, one group a step, with a KV cache (Fig. 4): once by `generate`, batch after batch by `Steps`."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from restok.config import Guidance
from restok.errors import InputError
from restok.generator.guidance import guidance_scales
from restok.generator.model import HAR
from restok.nn.finite import NotFiniteError


def filter_logits(logits: Float[Tensor, "... k"], top_k: int, top_p: float) -> Float[Tensor, "... k"]:
    """Top-k, then top-p: all but the k largest, then all but the fewest that reach probability p, become -inf. 0 (and a p of
    1) is off, as the paper says; the largest logit always stays."""
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    if 0 < top_p < 1:
        values, order = logits.sort(dim=-1, descending=True)
        probabilities = values.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities                       # mass of what is larger
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


def uniforms(seed: int, first: int, images: int, tokens: int) -> Float[Tensor, "b n"]:
    """One number in [0, 1) a token; image i's depend on (seed, first + i) alone, so not on batch size or device."""
    rows = [np.random.default_rng((seed, first + i)).random(tokens) for i in range(images)]
    return torch.from_numpy(np.stack(rows))


def draw(logits: Float[Tensor, "b g k"], u: Float[Tensor, "b g"]) -> Int[Tensor, "b g"]:
    """The token at which the cumulated probability, in float64, passes u."""
    cumulated = logits.double().softmax(-1).cumsum(-1)
    target = (u * cumulated[..., -1])[..., None]
    chosen = torch.searchsorted(cumulated, target, right=True).squeeze(-1)
    return chosen.clamp(max=logits.shape[-1] - 1)


class Steps:
    """All steps of batches of one size, over one cache and without waiting for the device: on a GPU one CUDA graph, captured
    once, which holds each step at its own shapes. `guidance`: None is none."""

    def __init__(self, generator: HAR, images: int, guidance: Guidance | None = None, temperature: float = 1.0,
                 top_k: int = 0, top_p: float = 0.0, greedy: bool = False):
        config = generator.config
        self.generator, self.images = generator, images
        self.temperature, self.top_k, self.top_p, self.greedy = temperature, top_k, top_p, greedy
        self.scales = [1.0] * len(config.groups) if guidance is None else guidance_scales(guidance, config.groups)
        self.guided = any(scale != 1 for scale in self.scales)
        self.on = generator.head.weight.device
        self.labels = torch.full((images * (1 + self.guided),), generator.no_class, device=self.on)         # (2b), or b
        self.noise = torch.zeros(images, config.tokens, dtype=torch.float64, device=self.on)
        self.codes = torch.zeros(images, config.tokens, dtype=torch.int64, device=self.on)
        self.sound = torch.ones(len(config.groups), images, dtype=torch.bool, device=self.on)
        self.cache = generator.new_cache(len(self.labels))
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def capture(self) -> None:
        """On a GPU, from here on: replay what one run records. Elsewhere nothing changes."""
        if self.on.type == "cuda":
            side = capturing(self.on)
            side.wait_stream(torch.cuda.current_stream(self.on))
            with torch.cuda.stream(side):                # kernels are chosen, and libraries begin, outside of the record
                self._run()
            torch.cuda.current_stream(self.on).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.device(self.on), torch.cuda.graph(graph, stream=side):
                self._run()
            self.graph = graph

    @torch.no_grad()
    def __call__(self, labels: Int[Tensor, " b"], seed: int = 0,
                 offset: int = 0) -> tuple[Int[Tensor, "b n"], Bool[Tensor, " steps"]]:
        """Codes of one image a label, and whether each step's logits were finite (`require_sound`), on the device. Image i
        draws from (seed, offset + i) alone; of fewer labels than `images` the rest is drawn and dropped.

        Raises ValueError for a label that is not a class, and for more labels than there is room for.
        """
        require_classes(labels, self.generator.config.classes)
        if (count := len(labels)) > self.images:
            raise InputError(f"{count} labels: these steps draw {self.images} images at once; make others")
        self.labels[:count].copy_(_pinned(labels, self.on), non_blocking=True)
        if not self.greedy:
            noise = uniforms(seed, offset, count, self.noise.shape[1])
            self.noise[:count].copy_(_pinned(noise, self.on), non_blocking=True)
        if self.graph is None:
            self._run()
        else:
            self.graph.replay()
        return self.codes[:count].clone(), self.sound[:, :count].all(1)

    def _run(self) -> None:
        generator, previous, drawn = self.generator, None, 0
        for layer in self.cache:
            layer.clear()
        for step, (size, scale) in enumerate(zip(generator.config.groups, self.scales, strict=True)):
            logits = generator.step(generator.group_input(step, previous, self.labels), self.cache)         # (2)b g k
            if self.guided:
                conditional, unconditional = logits.chunk(2)
                logits = unconditional + scale * (conditional - unconditional) if scale != 1 else conditional
            logits = logits if self.greedy else logits / self.temperature
            self.sound[step] = logits.isfinite().all((1, 2))                                              # looked at in the end
            if self.greedy:
                tokens = logits.argmax(-1)
            else:
                tokens = draw(filter_logits(logits, self.top_k, self.top_p), self.noise[:, drawn:drawn + size])
            self.codes[:, drawn:drawn + size] = tokens                                                    # b g
            previous = torch.cat([tokens, tokens]) if self.guided else tokens
            drawn += size


@cache
def capturing(on: torch.device) -> torch.cuda.Stream:
    """The one stream in which graphs are recorded: libraries keep memory for every stream that they have seen."""
    return torch.cuda.Stream(on)


def require_classes(labels: Int[Tensor, " b"], classes: int) -> None:
    """Raises ValueError for a label that is not a class."""
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        raise ValueError(f"labels from {int(labels.min())} to {int(labels.max())}: expected classes 0 to {classes - 1}")


def require_sound(sound: Bool[Tensor, " steps"]) -> None:
    """Raises NotFiniteError for a step whose logits were not finite. Waits for the device."""
    if False in (steps := sound.tolist()):
        raise NotFiniteError(f"NaN or infinity in the logits, first in step {steps.index(False) + 1} of {len(steps)}: no code "
                             "stands for it; take sound weights of the generator, and float32 where they overflow in less")


def _pinned(tensor: Tensor, on: torch.device) -> Tensor:
    """Host memory that a GPU copies from while the host goes on."""
    return tensor.pin_memory() if on.type == "cuda" and tensor.device.type == "cpu" else tensor


def generate(generator: HAR, labels: Int[Tensor, " b"], guidance: Guidance | None = None, temperature: float = 1.0,
             top_k: int = 0, top_p: float = 0.0, greedy: bool = False, seed: int = 0, offset: int = 0) -> Int[Tensor, "b n"]:
    """Codes of one image a label. Image i draws from (seed, offset + i) alone. `guidance`: None is none.

    Raises ValueError for a label that is not a class, NotFiniteError for logits that are NaN or infinite.
    """
    was_training = generator.training
    generator.eval()
    try:
        codes, sound = Steps(generator, len(labels), guidance, temperature, top_k, top_p, greedy)(labels, seed, offset)
    finally:
        generator.train(was_training)
    require_sound(sound)
    return codes
