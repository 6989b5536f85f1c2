"""Figures 5 and 6: pictures, and the attention behind them."""

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import SubFigure

from restok.experiments.records import Prepared
from restok.reporting.figures.common import SMALL, drawing
from restok.reporting.inputs import Inputs
from restok.reporting.measured import best
from restok.reporting.run import array_rows, arrays, fault, read

CLASSES, PER_CLASS = 20, 8          # of Fig. 6, at most


def fig5_data(panel_npz: str | Path) -> pd.DataFrame:
    """Fig. 5's numbers, one a row: the `share` of attention from a level to a scale, by layer and as the 'mean' over the layers
    that have the scale; and the `PSNR` in dB of each image shown, from its first `tokens`. What does not apply is blank."""
    psnr, kept, attention = arrays(panel_npz, "psnr", "kept", "attention")
    if not np.isfinite(psnr).all() or not np.isfinite(attention).any() or np.isinf(attention).any():
        raise fault(Path(panel_npz), "psnr or attention holds no finite numbers")
    shares = [("mean", _mean(attention)), *enumerate(attention, start=1)]
    rows = [{"quantity": "share", "layer": layer, "level": level + 1, "scale": scale + 1, "value": float(value)}
            for layer, share in shares for (level, scale), value in np.ndenumerate(share) if np.isfinite(value)]
    rows += [{"quantity": "PSNR", "image": image + 1, "tokens": int(kept[place]), "value": float(value)}
             for (image, place), value in np.ndenumerate(psnr)]
    frame = pd.DataFrame(rows, columns=["quantity", "layer", "level", "scale", "image", "tokens", "value"])
    return frame.astype(dict.fromkeys(("level", "scale", "image", "tokens"), "Int64"))


def fig5(inputs: Inputs, item: str, out: Path) -> None:
    """Fig. 5. Above, reconstructions from the first 1, 2, 4, ... tokens, with the mean PSNR of those shown; below, the
    encoder's attention from latent levels to image scales: its mean over the layers that have the scale, then by layer.

    Reads `originals` (m h w 3) and `prefixes` (m l h w 3), bytes; `psnr` (m l), in dB; `kept` (l), tokens; `attention` (layers
    levels scales), shares, scales coarse to fine, NaN where the layer does not have the scale yet.
    """
    panel_npz = _of_best(inputs, item, "panel")
    originals, prefixes, psnr, kept, attention = arrays(panel_npz, "originals", "prefixes", "psnr", "kept", "attention")
    grid = np.concatenate([originals[:, None], prefixes], axis=1)                              # m 1+l h w 3
    layers, levels, _ = attention.shape
    columns = min(layers, 8)
    rows = math.ceil(layers / columns)
    width = 7.5                                                                                # inches
    heights = (0.65 + min(5.8, len(grid) * width / grid.shape[1]), 0.7 + 0.19 * levels, 0.4 + rows * (0.32 + 0.11 * levels))
    names = [f"{k} token{'s' * (k > 1)}\n{shown:.1f} dB" for k, shown in zip(kept.tolist(), psnr.mean(axis=0), strict=True)]
    with drawing(width, sum(heights), out, fig5_data(panel_npz), panel_npz) as figure:
        above, middle, below = figure.subfigures(3, 1, height_ratios=heights)
        above.suptitle("Reconstruction from the first tokens, mean PSNR", size=9, weight="bold")
        _pictures(above.subplots(), grid, columns=["original\n", *names])
        _mean_attention(middle, attention, kept)
        _attention_by_layer(below, attention, rows, columns)


def fig6_data(samples_npz: Path, class_names: Sequence[str]) -> pd.DataFrame:
    """What Fig. 6 shows where: one row a picture, whose `sample` counts from 0 in the file."""
    labels, = arrays(samples_npz, "labels")
    present = np.unique(labels)
    if present[0] < 0 or present[-1] >= len(class_names):
        which = f"up to {present[-1]}" if present[0] >= 0 else f"down to {present[0]}"
        raise fault(samples_npz, f"labels {which}, but there are {len(class_names)} class names")
    shown = present[np.linspace(0, len(present) - 1, min(CLASSES, len(present))).round().astype(int)]
    return pd.DataFrame([{
        "row": row + 1,
        "column": column + 1,
        "class": int(label),
        "class_name": class_names[label],
        "sample": int(sample),
        "source": samples_npz.as_posix(),
    } for row, label in enumerate(shown) for column, sample in enumerate(np.flatnonzero(labels == label)[:PER_CLASS])])


def fig6(inputs: Inputs, item: str, out: Path) -> None:
    """Fig. 6. Samples, one row a class: the first `PER_CLASS` of each. More classes than `CLASSES` are thinned evenly.

    Reads `arr_0` (n h w 3), bytes, and `labels` (n). Only what is shown is read: 50,000 samples need not fit into memory.
    """
    samples_npz = _of_best(inputs, item, "samples")
    manifest = read(inputs.tree.path("data") / "manifest.json", Prepared)
    data = fig6_data(samples_npz, manifest["splits"]["train"]["classes"])
    samples = array_rows(samples_npz, "arr_0", data["sample"].tolist())
    first = next(iter(samples.values()))
    if first.dtype != np.uint8 or first.ndim != 3 or first.shape[2] != 3:
        raise fault(samples_npz, f"arr_0 holds {first.dtype} {first.shape}; expected bytes (h w 3)")
    shape = (data["row"].max(), data["column"].max(), *first.shape)
    grid = np.full(shape, 255, np.uint8)                                                       # white where a class has too few
    for row, column, sample in data[["row", "column", "sample"]].itertuples(index=False):
        grid[row - 1, column - 1] = samples[sample]
    names = data.drop_duplicates("row")["class_name"]
    with drawing(0.7 * grid.shape[1] + 1.0, 0.7 * len(names) + 0.1, out, data, samples_npz) as figure:
        _pictures(figure.subplots(), grid, rows=[fill(name, 18) for name in names])


def _of_best(inputs: Inputs, item: str, stage: str) -> Path:
    """A stage's result at the best checkpoint, of the first seed."""
    row = best(inputs.tree, item)
    return inputs.tree.path(stage, row.trials[0], row.first.label)


def _mean(attention: Float[np.ndarray, "layers levels scales"]) -> Float[np.ndarray, "levels scales"]:
    """Over the layers that have the scale; NaN where none has."""
    return np.ma.masked_invalid(attention).mean(axis=0).filled(np.nan)


def _pictures(axis, grid: np.ndarray, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """Draw a grid of pictures (rows columns h w 3) as one, pixels enlarged as they are, with names on the left and above."""
    down, across, h, w, _ = grid.shape
    gap = max(1, round(0.06 * w))
    framed = np.pad(grid, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    sheet = framed.swapaxes(1, 2).reshape(down * (h + gap), across * (w + gap), 3)[:-gap, :-gap]
    axis.imshow(sheet, interpolation="nearest")
    axis.set_yticks([(h + gap) * i + h / 2 for i in range(len(rows))], rows, parse_math=False)       # a name may hold $
    axis.set_xticks([(w + gap) * i + w / 2 for i in range(len(columns))], columns, size=SMALL)
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)


def _mean_attention(figure: SubFigure, attention: np.ndarray, kept: np.ndarray) -> None:
    """The mean over the layers that have the scale, each share written into its cell."""
    levels, mean = attention.shape[1], _mean(attention)                                        # mean: levels scales
    axis = figure.subplots()
    picture = _draw_shares(axis, mean)
    for (level, scale), share in np.ndenumerate(mean):
        if np.isfinite(share):
            axis.text(scale, level, f"{share:.2f}", ha="center", va="center", size=SMALL,
                      color="black" if share > np.nanmax(mean) / 2 else "white")
    names = [f"level {i}" for i in range(1, levels + 1)]
    if len(kept) == levels:                                  # a flat tokenizer has one level, whatever the prefixes shown
        spans = zip(names, [1, *(kept[:-1] + 1)], kept, strict=True)
        names = [f"{name}: token {a}" if a == b else f"{name}: tokens {a}-{b}" for name, a, b in spans]
    axis.set_yticks(range(levels), names)
    axis.set_title("Attention from latent levels to image scales, mean over layers")
    figure.colorbar(picture, ax=axis, label="share of attention")


def _attention_by_layer(figure: SubFigure, attention: np.ndarray, rows: int, columns: int) -> None:
    """One small map a layer, on one scale of colours; a scale that the layer does not have yet stays grey."""
    layers, levels, _ = attention.shape
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for layer, axis in enumerate(axes):
        axis.set_visible(layer < layers)
        if layer < layers:
            _draw_shares(axis, attention[layer], most=np.nanmax(attention), size=SMALL)
            axis.set_title(f"layer {layer + 1}", weight="normal", size=SMALL)
            axis.set_yticks(range(levels), range(1, levels + 1), size=SMALL)
    axes[0].set_ylabel("level", size=SMALL)
    figure.suptitle(f"Layer by layer (brightest: {np.nanmax(attention):.2f}; grey: no such scale yet)", size=9, weight="bold")


def _draw_shares(axis, shares: Float[np.ndarray, "levels scales"], most: float | np.floating | None = None,
                 size: float | None = None):
    """A map; a scale that a layer does not have yet is grey."""
    axis.set_facecolor("0.85")
    axis.set_xticks(range(shares.shape[1]), [f"S{i}" for i in range(1, shares.shape[1] + 1)], size=size)
    axis.tick_params(length=0)
    return axis.imshow(shares, aspect="auto", vmin=0, vmax=most)
