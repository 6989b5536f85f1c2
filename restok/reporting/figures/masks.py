"""Fig. 8: the attention masks of the tokenizer and of the generator."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from restok.reporting.figures.common import PLACED, SMALL, STYLE, save
from restok.reporting.run import arrays

SIDE = 2.9                           # inches of a mask
GAP = 1.35 * SMALL / (72 * SIDE)     # between two names, as a share of the side
CELLS = 48                           # tokens up to which every cell has its own outline
FAMILIES = {"S": "Blues", "L": "Oranges"}   # by the first letter of a group's name


def fig8_data(layout_npz: str | Path) -> pd.DataFrame:
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
                         "source": Path(layout_npz).as_posix()})
    return pd.DataFrame(rows)


def fig8(layout_npz: str | Path, out: str | Path) -> None:
    """Fig. 8. The tokenizer's mask after its last merge and the generator's: a row is a query, and attends to the coloured
    columns. Lines part the groups, whose names stand on the left and above."""
    masks = _masks(layout_npz)
    titles = {"tokenizer": "(a) Tokenizer's encoder", "generator": "(b) Generator"}
    labels = {part: _labels(sizes, names) for part, (_, sizes, names) in masks.items()}
    longest = max(len(label) for found in labels.values() for label in found) * 0.62 * SMALL / 72      # inches, about
    with matplotlib.style.context([STYLE, PLACED]):
        width, height = 2 * (SIDE + longest) + 0.6, SIDE + longest + 0.9
        figure = Figure(figsize=(width, height))
        for place, (part, (mask, sizes, names)) in enumerate(masks.items()):
            x = longest + 0.2 + place * (SIDE + longest + 0.4)
            axis = figure.add_axes([x / width, 0.6 / height, SIDE / width, SIDE / height])
            axis.set_axis_off()
            axis.set(xlim=(0, len(mask)), ylim=(len(mask), 0))
            _draw(axis, mask, sizes, names)
            _name(axis, sizes, labels[part])
            axis.text(0, -0.06, titles[part], transform=axis.transAxes, weight="bold", size=9, va="top")
            axis.text(0, -0.13, f"{len(mask)} tokens; rows attend to columns", transform=axis.transAxes, size=SMALL, va="top")
        save(figure, out, fig8_data(layout_npz), layout_npz)


def _masks(layout_npz: str | Path) -> dict[str, tuple[np.ndarray, list[int], list[str]]]:
    """By part: mask, sizes of the groups, their names."""
    keys = ("encoder_mask", "encoder_groups", "encoder_names", "generator_mask", "generator_groups", "generator_inputs")
    mask, sizes, names, generator, steps, inputs = arrays(layout_npz, *keys)
    read = np.split(inputs, np.cumsum(steps)[:-1])
    return {"tokenizer": (mask, sizes.tolist(), names.tolist()),
            "generator": (generator, steps.tolist(), [_shorten(group) for group in read])}


def _shorten(names: Sequence[str]) -> str:
    """t5 t6 t7 t8 M3 M4 -> t5-t8 M3-M4."""
    runs = [list(run) for _, run in groupby(names, key=lambda name: name[0])]
    return " ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _labels(sizes: Sequence[int], names: Sequence[str]) -> list[str]:
    return [f"{name} ({size})" if size > 1 else name for size, name in zip(sizes, names, strict=True)]


def _draw(axis, mask: Bool[np.ndarray, "n n"], sizes: Sequence[int], names: Sequence[str]) -> None:
    """The cells as they are in the mask, in the tint of their column's group; then the lines."""
    n, ends = len(mask), np.cumsum(sizes)
    for size, end, colour in zip(sizes, ends, tints(names), strict=True):
        cells = rectangles(mask[:, end - size:end], end - size)
        axis.add_collection(PolyCollection(cells, facecolor=colour, linewidth=0), autolim=False)
    if n <= CELLS:
        axis.add_collection(_lines(range(n + 1), n, color="0.88", linewidth=0.4))
    axis.add_collection(_lines([0, *ends], n, color="0.35", linewidth=0.5 if len(sizes) <= CELLS else 0.1, clip_on=False))


def tints(names: Sequence[str]) -> list[tuple]:
    """A colour a group: blues for image scales, oranges for latent levels, greens for others, darker along the sequence."""
    families = [FAMILIES[name[0]] if name[0] in FAMILIES else "Greens" for name in names]
    shades = [families[:i].count(family) / max(1, families.count(family) - 1) for i, family in enumerate(families)]
    return [colormaps[family](0.3 + 0.45 * shade) for family, shade in zip(families, shades, strict=True)]


def rectangles(cells: Bool[np.ndarray, "n m"], left: int = 0) -> list[Float[np.ndarray, "4 2"]]:
    """The True cells as few rectangles (corners x, y): rows that are alike, and in them the runs of True; `left` is the first
    column's place."""
    starts = np.flatnonzero(np.r_[True, (cells[1:] != cells[:-1]).any(axis=1)])
    found = []
    for top, bottom in zip(starts, [*starts[1:], len(cells)], strict=True):
        edges = np.flatnonzero(np.diff(np.r_[False, cells[top], False].astype(int)))
        for a, b in edges.reshape(-1, 2) + left:
            found.append(np.array([(a, top), (b, top), (b, bottom), (a, bottom)], float))
    return found


def _lines(places: Sequence[int], n: int, **style) -> LineCollection:
    return LineCollection([line for at in places for line in (((0, at), (n, at)), ((at, 0), (at, n)))], **style)


def _name(axis, sizes: Sequence[int], labels: Sequence[str]) -> None:
    """The names of the groups on the left and above, led to where there is room; too many are thinned evenly."""
    n, near, far = sum(sizes), 0.01, 0.05
    shown = np.unique(np.linspace(0, len(labels) - 1, min(int(1 / GAP), len(labels))).round().astype(int))
    middles = (np.cumsum(sizes) - np.array(sizes) / 2)[shown]
    aside = blended_transform_factory(axis.transAxes, axis.transData)
    above = blended_transform_factory(axis.transData, axis.transAxes)
    for middle, place, group in zip(middles, spread(middles, GAP * n, n), shown, strict=True):
        axis.plot([-near, -far], [middle, place], color="0.5", linewidth=0.5, transform=aside, clip_on=False)
        axis.plot([middle, place], [1 + near, 1 + far], color="0.5", linewidth=0.5, transform=above, clip_on=False)
        axis.text(-far - 0.01, place, labels[group], ha="right", va="center", size=SMALL, transform=aside)
        axis.text(place, 1 + far + 0.01, labels[group], ha="center", va="bottom", rotation=90, size=SMALL, transform=above)


def spread(wanted: Sequence[float], gap: float, end: float) -> Float[np.ndarray, " n"]:
    """Places in the given order, at least `gap` apart, near those wanted, half a gap within 0 and `end` where they fit."""
    steps = gap * np.arange(len(wanted))
    pushed_up = np.maximum.accumulate(np.asarray(wanted) - steps) + steps
    pushed_down = np.minimum.accumulate((np.asarray(wanted) - steps)[::-1])[::-1] + steps
    middle = (pushed_up + pushed_down) / 2
    return np.maximum(np.minimum(middle, end - gap / 2 - steps[::-1]), gap / 2 + steps)
