"""The layout of a configuration's sequences, as Figs. 8 and 9 draw it: groups, attention masks and position ids."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from restok import config
from restok.experiments.places import origin
from restok.files.npz import write_npz
from restok.hierarchy import scale_grids
from restok.nn.masks import block_causal
from restok.nn.rope import decoder_ids, encoder_ids


def layout(params: config.Params, out: Path) -> None:
    """Write an npz, each array made by the functions that the models call; no weights are needed.

    Of the encoder after its last merge (Fig. 8a, 9a): `encoder_mask` (n n, True = attends), `encoder_groups` (sizes),
    `encoder_names` (of the groups: S1 is the coarsest scale, L1 the first level), `encoder_ids` (n 2, row and column). Of the
    decoder (Fig. 9b): `decoder_groups`, `decoder_names`, `decoder_ids`. Of the generator (Fig. 8b): `generator_mask`,
    `generator_groups` and `generator_inputs`, what each place of its sequence reads.
    """
    tokenizer, groups = params.tokenizer, params.generator.groups
    write_npz(out, origin("layout", params), **encoder(tokenizer), **decoder(tokenizer),
              generator_mask=block_causal(groups).numpy(), generator_groups=np.array(groups),
              generator_inputs=np.array(inputs(groups)))


def encoder(tokenizer: config.Tokenizer) -> dict[str, np.ndarray]:
    """The sequence [image scales coarse to fine | latent levels], with every scale there."""
    grids = scale_grids(tokenizer.grid, tokenizer.merge_kernels)[::-1]
    groups = (*(height * width for height, width in grids), *tokenizer.levels)
    names = [*_numbered("S", len(grids)), *_numbered("L", len(tokenizer.levels))]
    return {"encoder_mask": block_causal(groups).numpy(), "encoder_groups": np.array(groups), "encoder_names": np.array(names),
            "encoder_ids": encoder_ids(grids, tokenizer.latents).numpy()}


def decoder(tokenizer: config.Tokenizer) -> dict[str, np.ndarray]:
    """The sequence [latent levels | mask tokens of the image grid], which has no mask."""
    names = [*_numbered("L", len(tokenizer.levels)), "image"]
    return {"decoder_groups": np.array((*tokenizer.levels, tokenizer.grid ** 2)), "decoder_names": np.array(names),
            "decoder_ids": decoder_ids(tokenizer.latents, (tokenizer.grid, tokenizer.grid)).numpy()}


def inputs(groups: Sequence[int]) -> list[str]:
    """What each place of the generator's sequence reads: 'class'; then, a group, the tokens of the one before it (t1 is the
    first) and as many mask tokens (M0 is the first) as bring them to its own size."""
    names, tokens, masks = ["class"], 0, 0
    for previous, size in pairwise(groups):
        names += [f"t{tokens + i + 1}" for i in range(previous)] + [f"M{masks + i}" for i in range(size - previous)]
        tokens, masks = tokens + previous, masks + size - previous
    return names


def _numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(1, count + 1)]
