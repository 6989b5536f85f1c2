"""Fig. 9: the position ids of the tokenizer's encoder and decoder."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int
from matplotlib import colormaps

from restok.reporting.figures.common import SMALL, drawing
from restok.reporting.inputs import Inputs
from restok.reporting.run import arrays, require_groups

TITLES = {"encoder": "(a) Encoder: image scales from coarse to fine, then latents",
          "decoder": "(b) Decoder: latents, then the image grid"}
WIDTH, TALLEST, LARGEST = 420, 160, 40        # points: a panel, a grid, the side of a cell
LETTER, LINE = 0.62 * SMALL, 1.6 * SMALL      # points: about a digit's width, a line of text
FAMILIES = {"image": "Blues", "text": "Oranges"}


def fig9_data(layout_npz: Path) -> pd.DataFrame:
    """Fig. 9's ids, a row a token of the encoder (after its last merge) and of the decoder: `kind` is image, a place of a grid,
    or text, which has the same id on both axes; `name` its scale or level."""
    frames = []
    for part in ("encoder", "decoder"):
        ids, sizes, names = arrays(layout_npz, f"{part}_ids", f"{part}_groups", f"{part}_names")
        require_groups(layout_npz, f"{part}_groups", sizes, len(ids))
        name = np.repeat(names, sizes)
        frames.append(pd.DataFrame({
            "part": part, "token": np.arange(1, len(ids) + 1), "kind": np.where(np.char.startswith(name, "L"), "text", "image"),
            "name": name, "row": ids[:, 0], "column": ids[:, 1], "source": layout_npz.as_posix()}))
    return pd.concat(frames, ignore_index=True)


def fig9(inputs: Inputs, item: str, out: Path) -> None:
    """Fig. 9. Every token with its ids (row, column) in it where they fit, else with those of the first and the last of its
    group; image tokens are blue and at their place in their grid, latents orange, a line a level; the larger the ids, the
    darker."""
    layout_npz = inputs.tree.path("layout")
    data = fig9_data(layout_npz)
    means = data[["row", "column"]].mean(axis=1)
    shade = 0.12 + 0.4 * means / means.groupby(data["part"]).transform("max").clip(lower=1)
    panels = dict(list(data.assign(shade=shade).groupby(["part", "kind"], sort=False)))
    places = [_places(panel, kind) for (_, kind), panel in panels.items()]
    cells = [_cell(kind, *at.max(axis=0) + 1) for (_, kind), at in zip(panels, places, strict=True)]
    heights = [height * (at[:, 0].max() + 1) for at, (_, height) in zip(places, cells, strict=True)]
    titles = dict(TITLES)                         # each above the first panel of its part
    with drawing((WIDTH + 12 * LINE) / 72, (sum(heights) + 18 * LINE) / 72, out, data, layout_npz) as figure:
        figure.get_layout_engine().set(h_pad=0.5 * LINE / 72)
        axes = figure.subplots(len(panels), 1, height_ratios=heights)
        for axis, ((part, kind), panel), at, cell in zip(axes, panels.items(), places, cells, strict=True):
            _draw(axis, panel, kind, at, *cell)
            axis.set_title(titles.pop(part, ""), loc="left", pad=2.5 * LINE if kind == "image" else LINE / 2)


def _places(panel: pd.DataFrame, kind: str) -> Int[np.ndarray, "n 2"]:
    """Row and column of each token's cell: grids stand side by side, a column apart, levels one under the other."""
    places, left = [], 0
    for level, (_, group) in enumerate(panel.groupby("name", sort=False)):
        ids = group[["row", "column"]].to_numpy()
        places.append(ids - ids.min(axis=0) + [0, left] if kind == "image" else [(level, place) for place in range(len(ids))])
        left = np.max(places[-1], axis=0)[1] + 2
    return np.concatenate(places)


def _cell(kind: str, rows: int | np.integer, columns: int | np.integer) -> tuple[float, float]:
    """Width and height in points."""
    side = min(LARGEST, WIDTH / columns)
    return (side, LINE) if kind == "text" else (min(side, TALLEST / rows),) * 2


def _draw(axis, panel: pd.DataFrame, kind: str, at: Int[np.ndarray, "n 2"], width: float, height: float) -> None:
    """The tokens of one kind, each in its cell, and the names of their groups."""
    picture = np.ones((*at.max(axis=0) + 1, 3))
    picture[tuple(at.T)] = colormaps[FAMILIES[kind]](panel["shade"])[:, :3]
    axis.imshow(picture, aspect=height / width, interpolation="none")
    axis.set(anchor="NW", **{f"{side}ticks": np.arange(n) + 0.5 for side, n in zip("yx", picture.shape, strict=False)})
    axis.tick_params(length=0, labelleft=False, labelbottom=False)
    axis.grid(color="white", linewidth=0.6)
    axis.spines[:].set_visible(False)
    note = partial(axis.annotate, textcoords="offset points", size=SMALL)
    ids = panel[["row", "column"]].to_numpy()
    written = (2 * len(str(ids.max())) + 1) * LETTER + 2 <= width
    for (row, column), (y, x) in zip(ids, at, strict=True) if written else ():
        note(f"{row},{column}", (x, y), (0, 0), ha="center", va="center")
    for name, tokens in panel.groupby("name", sort=False).indices.items():
        first, last = ("" if written else f"({row}, {column})" for row, column in ids[tokens[[0, -1]]])
        (top, left), (bottom, right) = at[tokens].min(axis=0) - 0.5, at[tokens].max(axis=0) + 0.5
        if kind == "image":
            note(f"{name}: {bottom - top:.0f} × {right - left:.0f}\n{first}".rstrip(), (left, top), (0, 3))
            note(last, (right, bottom), (0, -3), ha="right", va="top")
        else:
            note(name, (left, (top + bottom) / 2), (-4, 0), ha="right", va="center")
            note(" to ".join(dict.fromkeys((first, last))).strip(), (right, (top + bottom) / 2), (4, 0), va="center")
