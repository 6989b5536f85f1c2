"""Fig. 8: the attention masks of the tokenizer and of the generator."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import colormaps

from restok.reporting.figures.common import SMALL, drawing
from restok.reporting.inputs import Inputs
from restok.reporting.run import arrays, require_groups

TITLES = {"tokenizer": "(a) Tokenizer's encoder", "generator": "(b) Generator"}
NAMES = 22                           # names at most along a side, which are as many lines of small text
CELLS = 48                           # tokens, and groups, up to which lines are drawn in full
FAMILIES = {"S": "Blues", "L": "Oranges"}   # by the first letter of a group's name


def fig8_data(layout_npz: Path) -> pd.DataFrame:
    """Fig. 8's groups, in the order of their sequence: tokens `first` to `last`, counted from 1, and `attends_to`, the groups
    that are wholly attended to by the whole group."""
    rows = []
    for part, (mask, sizes, names) in _masks(layout_npz).items():
        ends = np.cumsum(sizes)
        for name, size, end in zip(names, sizes, ends, strict=True):
            queries = mask[end - size:end]
            seen = [queries[:, e - s:e].all() for s, e in zip(sizes, ends, strict=True)]
            rows.append({"part": part, "group": name, "tokens": int(size), "first": int(end - size + 1), "last": int(end),
                         "attends_to": " ".join(other for other, whole in zip(names, seen, strict=True) if whole),
                         "source": layout_npz.as_posix()})
    return pd.DataFrame(rows)


def fig8(inputs: Inputs, item: str, out: Path) -> None:
    """Fig. 8. The tokenizer's mask after its last merge and the generator's: a row is a query, and attends to the coloured
    columns, which have the tint of their group. Lines part the groups, whose names stand on the left and above."""
    layout_npz = inputs.tree.path("layout")
    with drawing(8.4, 4.6, out, fig8_data(layout_npz), layout_npz) as figure:
        for axis, (part, (mask, sizes, names)) in zip(figure.subplots(1, 2), _masks(layout_npz).items(), strict=True):
            axis.imshow(np.where(mask[..., None], np.repeat(_tints(names), sizes, axis=0), 1), interpolation="none")
            _part_groups(axis, sizes, names)
            axis.set_title(TITLES[part], loc="left")
            axis.set_xlabel(f"{len(mask)} tokens; rows attend to columns", loc="left", size=SMALL)
        figure.align_titles()


def _masks(layout_npz: Path) -> dict[str, tuple[np.ndarray, list[int], list[str]]]:
    """By part: mask, sizes of the groups, their names."""
    keys = ("encoder_mask", "encoder_groups", "encoder_names", "generator_mask", "generator_groups", "generator_inputs")
    mask, sizes, names, generator, steps, inputs = arrays(layout_npz, *keys)
    require_groups(layout_npz, "encoder_groups", sizes, len(mask))
    require_groups(layout_npz, "generator_groups", steps, len(generator))
    read = np.split(inputs, np.cumsum(steps)[:-1])
    return {"tokenizer": (mask, sizes.tolist(), names.tolist()),
            "generator": (generator, steps.tolist(), [_shorten(group) for group in read])}


def _shorten(names: Sequence[str] | np.ndarray) -> str:
    """t5 t6 t7 t8 M3 M4 -> t5-t8 M3-M4."""
    runs = [list(run) for _, run in groupby(names, key=lambda name: name[0])]
    return " ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _tints(names: Sequence[str]) -> Float[np.ndarray, "g 3"]:
    """A colour a group: blues for image scales, oranges for latent levels, greens for others, darker along the sequence."""
    families = [FAMILIES[name[0]] if name[0] in FAMILIES else "Greens" for name in names]
    shades = [families[:i].count(family) / max(1, families.count(family) - 1) for i, family in enumerate(families)]
    return np.array([colormaps[family](0.3 + 0.45 * shade)[:3] for family, shade in zip(families, shades, strict=True)])


def _part_groups(axis, sizes: Sequence[int], names: Sequence[str]) -> None:
    """Lines between the groups and, where they are few, between the tokens; the groups' names on the left and above."""
    n, edges = sum(sizes), np.cumsum([0, *sizes]) - 0.5
    for draw in (axis.hlines, axis.vlines):
        if n <= CELLS:
            draw(np.arange(n) - 0.5, -0.5, n - 0.5, color="0.88", linewidth=0.4)
        draw(edges, -0.5, n - 0.5, color="0.35", linewidth=0.5 if len(sizes) <= CELLS else 0.1, clip_on=False)
    runs = _runs(sizes, n / NAMES)
    middles = [(edges[run[0]] + edges[run[-1] + 1]) / 2 for run in runs]
    labels = [_label(names[run[0]], names[run[-1]], sizes[run[0]]) for run in runs]
    axis.set_xticks(middles, labels, rotation=90, size=SMALL)
    axis.set_yticks(middles, labels, size=SMALL)
    axis.tick_params(length=0, labelbottom=False, labeltop=True)
    axis.spines[:].set_visible(False)


def _runs(sizes: Sequence[int], least: float) -> list[list[int]]:
    """The groups by the name that they share: each has its own where it is `least` tokens wide, else with its neighbours."""
    runs = [[]]
    for group in range(len(sizes)):
        if sum(sizes[i] for i in runs[-1]) >= least:
            runs.append([])
        runs[-1].append(group)
    if len(runs) > 1 and sum(sizes[i] for i in runs[-1]) < least:
        runs[-2:] = [runs[-2] + runs[-1]]
    return runs


def _label(first: str, last: str, size: int) -> str:
    return f"{first} … {last}" if first != last else f"{first} ({size})" if size > 1 else first
