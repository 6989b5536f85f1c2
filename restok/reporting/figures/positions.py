"""Fig. 9: the position ids of the tokenizer's encoder and decoder."""

from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from restok.reporting.figures.common import PLACED, SMALL, STYLE, save
from restok.reporting.run import arrays

WIDTH = 520                          # points: everything here is drawn in them
TALLEST = 160                        # a grid
LARGEST = 40                         # the side of a cell
LETTER = 0.62 * SMALL                # about a digit's width
LINE = 1.5 * SMALL
FAMILIES = {"image": "Blues", "text": "Oranges"}


def fig9_data(layout_npz: str | Path) -> pd.DataFrame:
    """Fig. 9's ids, a row a token of the encoder (after its last merge) and of the decoder: `kind` is image, a place of a grid,
    or text, which has the same id on both axes; `name` its scale or level."""
    frames = []
    for part in ("encoder", "decoder"):
        ids, sizes, names = arrays(layout_npz, f"{part}_ids", f"{part}_groups", f"{part}_names")
        name = np.repeat(names, sizes)
        frames.append(pd.DataFrame({
            "part": part, "token": np.arange(1, len(ids) + 1), "kind": np.where(np.char.startswith(name, "L"), "text", "image"),
            "name": name, "row": ids[:, 0], "column": ids[:, 1], "source": Path(layout_npz).as_posix()}))
    return pd.concat(frames, ignore_index=True)


def fig9(layout_npz: str | Path, out: str | Path) -> None:
    """Fig. 9. Every token with its ids (row, column) in it where they fit, else with those of the first and the last of its
    group; image tokens are blue and at their place in their grid, latents orange; the larger the ids, the darker."""
    data = fig9_data(layout_npz)
    means = data[["row", "column"]].mean(axis=1)
    shade = 0.12 + 0.4 * means / means.groupby(data["part"]).transform("max").clip(lower=1)
    data_drawn = data.assign(colour=[colormaps[FAMILIES[kind]](tint) for kind, tint in zip(data["kind"], shade, strict=True)])
    with matplotlib.style.context([STYLE, PLACED]):
        figure = Figure()
        axis = figure.add_axes([0, 0, 1, 1])
        y = 0.0
        for part, title in (("encoder", "(a) Encoder: image scales from coarse to fine, then latents"),
                            ("decoder", "(b) Decoder: latents, then the image grid")):
            axis.text(0, y, title, weight="bold", size=9, va="top")
            y = _part(axis, y + 2 * LINE, data_drawn[data_drawn["part"] == part]) + 1.5 * LINE
        figure.set_size_inches(WIDTH / 72, (y - 2 * LINE) / 72)
        axis.set(xlim=(0, WIDTH), ylim=(y - 2 * LINE, 0))
        axis.set_axis_off()
        save(figure, out, data, layout_npz)


def _part(axis, y: float, part: pd.DataFrame) -> float:
    """Grids side by side, latents one level under the other, in the order of the sequence. Returns where it ends."""
    for kind in dict.fromkeys(part["kind"]):
        groups = [group for _, group in part[part["kind"] == kind].groupby("name", sort=False)]
        y = (_grids if kind == "image" else _levels)(axis, y, groups)
    return y


def _grids(axis, y: float, groups: list[pd.DataFrame]) -> float:
    """Image tokens, each placed by its ids less the least of its grid."""
    places = [group[["row", "column"]].to_numpy() for group in groups]
    places = [ids - ids.min(axis=0) for ids in places]
    shapes = [ids.max(axis=0) + 1 for ids in places]
    gap, tallest = 1.5 * LINE, max(rows for rows, _ in shapes)
    cell = min(LARGEST, TALLEST / tallest, (WIDTH - gap * (len(shapes) - 1)) / sum(columns for _, columns in shapes))
    written = _fit(groups, cell)
    x, under = 0.0, y + (1 if written else 2) * LINE
    for group, at, (rows, columns) in zip(groups, places, shapes, strict=True):
        first, last = _ends(group)
        axis.text(x, y, f"{group['name'].iloc[0]}: {rows} × {columns}", size=SMALL, va="top")
        if not written:
            axis.text(x, y + LINE, first, size=SMALL, va="top")
            axis.text(x + columns * cell, under + rows * cell + 2, last, size=SMALL, va="top", ha="right")
        for (row, column), token in zip(at, group.itertuples(), strict=True):
            _cell(axis, x + column * cell, under + row * cell, cell, cell, token, written)
        x += max(columns * cell, LETTER * len(first)) + gap
    return under + tallest * cell + (0.8 if written else 2) * LINE


def _levels(axis, y: float, groups: list[pd.DataFrame]) -> float:
    """Latents, a line a level: its name before it and, where ids do not fit into the cells, its first and last after it."""
    left, right = 2.5 * LINE, 10 * LINE
    cell = min(LARGEST, (WIDTH - left - right) / max(map(len, groups)))
    written = _fit(groups, cell)
    for group in groups:
        axis.text(0, y + LINE / 2, group["name"].iloc[0], size=SMALL, va="center")
        for place, token in enumerate(group.itertuples()):
            _cell(axis, left + place * cell, y, cell, LINE, token, written)
        if not written:
            ends = " to ".join(dict.fromkeys(_ends(group)))
            axis.text(left + len(group) * cell + 4, y + LINE / 2, ends, size=SMALL, va="center")
        y += 1.15 * LINE
    return y + 0.8 * LINE


def _cell(axis, x: float, y: float, width: float, height: float, token, written: bool) -> None:
    axis.add_patch(Rectangle((x, y), width, height, facecolor=token.colour, edgecolor="white", linewidth=0.5))
    if written:
        axis.text(x + width / 2, y + height / 2, f"{token.row},{token.column}", size=SMALL, ha="center", va="center")


def _fit(groups: list[pd.DataFrame], cell: float) -> bool:
    """Whether ids can be written into cells of this width."""
    top = max(group[["row", "column"]].to_numpy().max() for group in groups)
    return (2 * len(str(top)) + 1) * LETTER + 2 <= cell


def _ends(group: pd.DataFrame) -> list[str]:
    """The ids of the first token and of the last."""
    return [f"({row}, {column})" for row, column in group[["row", "column"]].iloc[[0, -1]].to_numpy()]
