"""How much disk a run needs, from the sizes in its parameters, against what is free where it is written."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from restok import config
from restok.config.base import Config
from restok.experiments.work import Counts, Results
from restok.generator.model import HAR
from restok.networks.pretrained import random_weights
from restok.objective.tokenizer import Adversary, TokenizerObjective
from restok.tokenizer.model import ResTok

KEPT = 3                                 # states of an unfinished training at most, while one is written


class Need(NamedTuple):
    """Bytes of one kind, of the parameter file's own run and of all rows of the sheet together."""

    what: str
    main: int
    sheet: int
    scaled_from: str


class Sizes(NamedTuple):
    """Bytes of finished weights, and of a state of their training."""

    weights: int
    state: int


def needs(main: Results, sheet: Results, counts: Counts, classifier: Path | None) -> list[Need]:
    """What stays, and what training takes in between. Logs, measurements, pictures and tables are small beside it.
    `classifier`: a folder with one of the parameters' sizes, where they train one."""
    sizes = _Sized(classifier)
    images = "the images as found" if counts.known else "ImageNet's usual size, for want of the images"

    def need(what: str, size: Callable[[Results], int], scaled_from: str) -> Need:
        return Need(what, size(main), size(sheet), scaled_from)

    def of(stage: str, size: Callable[[config.Params], int]) -> Callable[[Results], int]:
        return lambda made: sum(size(result.params) for result in made.values() if result.stage == stage)

    return [
        Need("prepared images", counts.size, counts.size, images),
        need("tokenizers", of("tokenizer", lambda params: sum(sizes.tokenizer(params))),
             "weights and state of each checkpoint, by the settings"),
        need("codes", of("codes", lambda params: counts.train * (2 * params.codes.crop_count * params.generator.tokens + 8)),
             f"{counts.train:,} images, 2 bytes a token"),
        need("generators", of("generator", lambda params: sizes.generator(params).weights), "weights, by the settings"),
        need("states in training", lambda made: KEPT * max((sizes.state(result.stage, result.params)
                                                            for result in made.values()), default=0),
             f"{KEPT} of the largest, of one training at a time")]


class _Module(NamedTuple):
    """Bytes of all its tensors, and of those that are trained."""

    tensors: int
    parameters: int

    @property
    def remembered(self) -> int:
        """In a state: its tensors, and the two numbers a parameter that AdamW remembers."""
        return self.tensors + 2 * self.parameters


class _Sized:
    """Sizes of models by their settings, each built once, without memory."""

    def __init__(self, classifier: Path | None):
        self.classifier, self.known = classifier, {}

    def tokenizer(self, params: config.Params) -> Sizes:
        tokenizer, objective = params.tokenizer, params.objective
        model = self._once([tokenizer], lambda: ResTok(tokenizer))
        state = model.remembered + model.tensors                           # and their average
        aligned = objective.model_copy(update={"perceptual": 0})
        state += self._once([aligned, tokenizer], lambda: TokenizerObjective(
            aligned, tokenizer, self.classifier).alignment).remembered
        if objective.gan:
            state += self._once([objective.discriminator], lambda: Adversary(
                objective.discriminator, self.classifier).discriminator.heads).remembered
        return Sizes(model.tensors, state)

    def generator(self, params: config.Params) -> Sizes:
        model = self._once([params.generator], lambda: HAR(params.generator))
        return Sizes(model.tensors, model.remembered + model.tensors)

    def state(self, stage: str, params: config.Params) -> int:
        return getattr(self, stage)(params).state if stage in ("tokenizer", "generator") else 0

    def _once(self, settings: Iterable[Config], build: Callable[[], nn.Module]) -> _Module:
        key = json.dumps([each.model_dump(mode="json") for each in settings], sort_keys=True)
        if key not in self.known:
            with torch.device("meta"), random_weights():
                module = build()
            self.known[key] = _Module(sum(tensor.nbytes for tensor in module.state_dict().values()),
                                      sum(parameter.nbytes for parameter in module.parameters()))
        return self.known[key]


def free(places: Iterable[Path]) -> int:
    """Bytes that are free on the disk with the least of it, where folders are, or will be made."""
    existing = (next(up for up in (place, *place.absolute().parents) if up.exists()) for place in places)
    return min(shutil.disk_usage(place).free for place in existing)


def standing(places: Iterable[Path]) -> int:
    """Bytes of what is there already; a file of several names counts once."""
    seen = {}
    for place in places:
        for folder, _, files in os.walk(place):
            for name in files:
                facts = os.lstat(os.path.join(folder, name))
                seen[facts.st_dev, facts.st_ino] = facts.st_size
    return sum(seen.values())
