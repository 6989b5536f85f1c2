"""The release's fault with a single next-token prediction (8 steps): the class leaves the cache after the first step."""

import copy
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from restok.errors import InputError
from restok.generator.model import HAR
from restok.generator.sampling import generate
from restok.nn.attention import Cache


@dataclass
class RestartingCache(Cache):
    """Counts its slots from 0 again after the first token, which the second one then replaces."""

    restarted: bool = False

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        filled = super().append(k, v)
        if not self.restarted:
            self.length, self.restarted = 0, True
        return filled

    def clear(self) -> None:
        super().clear()
        self.restarted = False


def losing_class(generator: HAR) -> HAR:
    """The same weights with the fault: the second call writes its keys and values over the class token's, so that from there on
    no logit depends on the class.

    That much of the release is recorded. Here token 1 takes the class token's slot and position, and the later groups follow
    from there; where the release puts those is not recorded. Raises ValueError for another `ntp` than 1.
    """
    if generator.config.ntp != 1:
        raise InputError(f"generator.ntp is {generator.config.ntp!r}: the release loses the class with 1 alone; sample with "
                         "sampling.class_cache 'kept'")
    faulty = copy.copy(generator)                                               # the same weights, another cache
    faulty.new_cache = lambda images: [RestartingCache(layer.keys, layer.values) for layer in generator.new_cache(images)]
    return faulty


def generate_with_lost_class(generator: HAR, labels: Int[Tensor, " b"], *args: Any, **options: Any) -> Int[Tensor, "b n"]:
    """`restok.generate`, with its arguments, and `losing_class`, to compare with."""
    return generate(losing_class(generator), labels, *args, **options)
