"""Nested dropout of latents (Table 9): how many of an image's latents the decoder sees in training."""

import torch
from jaxtyping import Int
from torch import Tensor

from restok.config import Tokenizer
from restok.hierarchy import keep_probabilities


def draw_keep(config: Tokenizer, images: int, generator: torch.Generator) -> Int[Tensor, " b"]:
    """Table 9. Latents to keep, drawn for each image."""
    table = keep_probabilities(config.latents, config.keep_minimum, config.drop_probability)
    kept, odds = torch.tensor(list(table)), torch.tensor([float(p) for p in table.values()])
    return kept[torch.multinomial(odds, images, replacement=True, generator=generator)]
