"""Figures 5, 6 and 7, and the use of the codebook by level: each function writes one PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure

from restok.config import Params
from restok.files import atomic_file
from restok.reporting.run import Record, array_rows, arrays, best, evaluations, fault, require_metric

STYLE = "restok.reporting.style"   # style.mplstyle beside this file


def fig5(panel_npz: str | Path, out: str | Path) -> None:
    """Fig. 5. Above, reconstructions from the first 1, 2, 4, ... tokens; below, the encoder's attention from each latent level
    to each image scale: its mean over the layers that have the scale, then layer by layer.

    Reads `originals` (m h w 3) and `prefixes` (m l h w 3), bytes; `kept` (l), tokens; `attention` (layers levels scales),
    shares, scales coarse to fine, NaN where the layer does not have the scale yet.
    """
    originals, prefixes, kept, attention = arrays(panel_npz, "originals", "prefixes", "kept", "attention")
    grid = np.concatenate([originals[:, None], prefixes], axis=1)                              # m 1+l h w 3
    layers, levels, _ = attention.shape
    columns = min(layers, 8)
    rows = math.ceil(layers / columns)
    width = 7.5
    heights = (0.55 + len(grid) * min(1.5, width / grid.shape[1]), 0.7 + 0.24 * levels, 0.4 + rows * (0.35 + 0.11 * levels))
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(width, sum(heights)))
        above, middle, below = figure.subfigures(3, 1, height_ratios=heights)
        above.suptitle("Reconstruction from the first tokens", size=9, weight="bold")
        _pictures(above.subplots(), grid, columns=["original", *(f"{k} token{'s' * (k > 1)}" for k in kept.tolist())])
        _mean_attention(middle, attention, kept)
        _attention_by_layer(below, attention, rows, columns)
        _save(figure, out, panel_npz)


def fig6(samples_npz: str | Path, class_names: Sequence[str], out: str | Path, per_class: int = 8, classes: int = 20) -> None:
    """Fig. 6. Samples, one row a class: the first `per_class` of each. More classes than `classes` are thinned evenly.

    Reads `arr_0` (n h w 3), bytes, and `labels` (n). Only what is shown is read: 50,000 samples need not fit into memory.
    """
    labels, = arrays(samples_npz, "labels")
    present = np.unique(labels)
    if not len(present) or present[-1] >= len(class_names):
        raise fault(Path(samples_npz), f"labels up to {labels.max(initial=-1)}, but there are {len(class_names)} class names")
    shown = present[np.linspace(0, len(present) - 1, min(classes, len(present))).round().astype(int)]
    places = [np.flatnonzero(labels == label)[:per_class] for label in shown]
    samples = array_rows(samples_npz, "arr_0", np.concatenate(places).tolist())
    grid = np.full((len(shown), max(map(len, places)), *samples[places[0][0]].shape), 255, np.uint8)   # white where too few
    for row, place in enumerate(places):
        grid[row, :len(place)] = [samples[i] for i in place]
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(0.7 * grid.shape[1] + 1.0, 0.7 * len(shown) + 0.1))
        _pictures(figure.subplots(), grid, rows=[fill(class_names[label], 18) for label in shown])
        _save(figure, out, samples_npz)


def fig7_data(run_dir: str | Path, params: Params) -> pd.DataFrame:
    """Fig. 7's numbers, one row a checkpoint of the tokenizer; low and high bound the 95 % interval of a distance."""
    return pd.DataFrame([{
        "checkpoint": e.label,
        "step": e.step,
        "reconstruction_metric": e.reconstruction_distance,
        "generation_metric": e.distance,
        **_with_interval("reconstruction_distance", e.reconstruction, e.reconstruction_distance),
        **_with_interval("generation_distance", e.generation, e.distance),
        "reconstruction_accuracy": e.reconstruction["metrics"]["class_accuracy"],
        "generation_accuracy": e.generation["metrics"]["class_accuracy"],
        "features": e.features,
        "reconstruction_n": e.reconstruction["n"],
        "generation_n": e.generation["n"],
        "source": f"{e.reconstruction.path.as_posix()}; {e.generation.path.as_posix()}",
    } for e in evaluations(run_dir, params)])


def fig7(data: pd.DataFrame, out: str | Path) -> None:
    """Fig. 7. Both distances of `fig7_data` against the tokenizer's iterations, with their 95 % intervals as bars; a ring marks
    the best generation.

    Where they span more than a factor of 10, both axes are one logarithmic scale: the later checkpoints would lie flat.
    """
    chosen = data.loc[data["generation_distance"].idxmin()]
    distances = data[["reconstruction_distance", "generation_distance"]].to_numpy(float)
    low, high = distances.min(), distances.max()
    ends = data.filter(regex="_distance(_low|_high)?$").to_numpy(float)
    ends = ends[ends > 0]                          # what a logarithmic scale can show; NaN, no interval, goes too
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(5.2, 3.2))
        left = figure.subplots()
        right = left.twinx()
        right.spines["right"].set_visible(True)
        aside = 0.008 * (data["step"].max() - data["step"].min())       # neither bar hides the other
        lines = []
        for axis, stage, colour, style, x in ((left, "reconstruction", "C0", "o-", data["step"] - aside),
                                              (right, "generation", "C1", "s--", data["step"] + aside)):
            distance, least, most = (data[f"{stage}_distance{end}"].astype(float) for end in ("", "_low", "_high"))
            lines.append(axis.errorbar(x, distance, (distance - least, most - distance), fmt=style, color=colour, elinewidth=1,
                                       label=stage))
            axis.set_ylabel(f"{stage} {chosen[f'{stage}_metric']} (lower is better)", color=colour)
            axis.tick_params(axis="y", colors=colour)
            axis.margins(y=0.15)
            if low > 0 and high > 10 * low:
                axis.set(yscale="log", ylim=(ends.min() / 1.5, ends.max() * 1.5))
        lowest = chosen["generation_distance"]
        lines += right.plot(chosen["step"] + aside, lowest, "o", markersize=14, fillstyle="none", color="black", linewidth=0,
                            label=f"best generation: {lowest:.4g} at {chosen['checkpoint']}")
        left.set_xticks(data["step"], data["checkpoint"])
        left.set_xlabel("tokenizer training iterations")
        left.grid(axis="y")
        figure.legend(handles=lines, loc="outside upper center", ncols=3)
        _save(figure, out, *_sources(data))


def codebook_data(run_dir: str | Path, params: Params) -> pd.DataFrame:
    """Use and entropy (Eq. 5-6, in bits) of the codebook by level, at the best checkpoint, over the reconstructed images.

    `most_usage` and `most_entropy` are what their number allows: n images use at most n codes of a level of one token; low
    and high bound the 95 % interval.
    """
    chosen = best(run_dir, params)
    size, n = params.tokenizer.codebook_size, chosen.reconstruction["n"]
    levels = require_metric(chosen.reconstruction, "codebook")["levels"]
    intervals = chosen.reconstruction["intervals"]["codebook"]["levels"]
    return pd.DataFrame([{
        "checkpoint": chosen.label,
        "level": level["level"],
        "tokens": level["tokens"],
        "used": level["used"],
        "dead": level["dead"],
        "usage": level["usage"],
        "usage_low": interval["usage"][0],
        "usage_high": interval["usage"][1],
        "most_usage": min(1.0, n * level["tokens"] / size),
        "entropy": level["entropy"],
        "entropy_low": interval["entropy"][0],
        "entropy_high": interval["entropy"][1],
        "most_entropy": math.log2(min(size, n * level["tokens"])),
        "n": n,
        "source": chosen.reconstruction.path.as_posix(),
    } for level, interval in zip(levels, intervals, strict=True)])


def codebook(data: pd.DataFrame, out: str | Path) -> None:
    """Use and entropy of the codebook by level (`codebook_data`), each with a line at the most that it could be."""
    ticks = [f"{level}\n({tokens})" for level, tokens in zip(data["level"], data["tokens"], strict=True)]
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(7.2, 2.9))
        for axis, column, scale, title, colour in zip(figure.subplots(1, 2), ("usage", "entropy"), (100, 1),
                                                      ("codes used (%)", "entropy (bits)"), ("C0", "C2"), strict=True):
            values, most = scale * data[column], scale * data[f"most_{column}"]
            axis.bar(data["level"], values, color=colour, width=0.7)
            for level, value in zip(data["level"], values, strict=True):
                axis.annotate(f"{value:.3g}", (level, value), xytext=(0, 3), textcoords="offset points", ha="center", size=7,
                              bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8})
            lines = axis.hlines(most, data["level"] - 0.42, data["level"] + 0.42, color="black", linewidth=1.2)
            axis.set_xticks(data["level"], ticks)
            axis.set_xlabel("level (its tokens)")
            axis.set_ylim(0, 1.12 * most.max())
            axis.set_title(title, loc="left")
            axis.grid(axis="y")
        figure.legend([lines], ["most that the number of images allows"], loc="outside upper right")
        _save(figure, out, *_sources(data))


def _with_interval(name: str, record: Record, metric: str) -> dict[str, float | None]:
    low, high = record["intervals"][metric] or (None, None)
    return {name: record["metrics"][metric], f"{name}_low": low, f"{name}_high": high}


def _save(figure: Figure, out: str | Path, *sources: str | Path) -> None:
    """Write the PNG; its text chunk "Source" names the files it was drawn from, for the page to cite."""
    with atomic_file(out) as partial:
        figure.savefig(partial, metadata={"Source": "; ".join(Path(source).as_posix() for source in sources)})


def _sources(data: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys("; ".join(data["source"]).split("; ")))


def _pictures(axis, grid: np.ndarray, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """Draw a grid of pictures (rows columns h w 3) as one, pixels enlarged as they are, with names on the left and above."""
    down, across, h, w, _ = grid.shape
    gap = max(1, round(0.06 * w))
    framed = np.pad(grid, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    sheet = framed.swapaxes(1, 2).reshape(down * (h + gap), across * (w + gap), 3)[:-gap, :-gap]
    axis.imshow(sheet, interpolation="nearest")
    axis.set_yticks([(h + gap) * i + h / 2 for i in range(len(rows))], rows)
    axis.set_xticks([(w + gap) * i + w / 2 for i in range(len(columns))], columns)
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)


def _mean_attention(figure: SubFigure, attention: np.ndarray, kept: np.ndarray) -> None:
    """The mean over the layers that have the scale, each share written into its cell."""
    levels, scales = attention.shape[1:]
    mean = np.ma.masked_invalid(attention).mean(axis=0)                                        # levels scales
    axis = figure.subplots()
    picture = axis.imshow(mean, aspect="auto", vmin=0)
    for (level, scale), share in np.ndenumerate(mean.filled(np.nan)):
        if np.isfinite(share):
            axis.text(scale, level, f"{share:.2f}", ha="center", va="center", size=7,
                      color="black" if share > mean.max() / 2 else "white")
    axis.set_facecolor("0.85")
    axis.set_xticks(range(scales), _scale_names(scales))
    names = [f"level {i}" for i in range(1, levels + 1)]
    if len(kept) == levels:                                  # a flat tokenizer has one level, whatever the prefixes shown
        spans = zip(names, [1, *(kept[:-1] + 1)], kept, strict=True)
        names = [f"{name}: token {a}" if a == b else f"{name}: tokens {a}-{b}" for name, a, b in spans]
    axis.set_yticks(range(levels), names)
    axis.tick_params(length=0)
    axis.set_title("Attention from latent levels to image scales, mean over layers")
    figure.colorbar(picture, ax=axis, label="share of attention")


def _attention_by_layer(figure: SubFigure, attention: np.ndarray, rows: int, columns: int) -> None:
    """One small map a layer, on one scale of colours; a scale that the layer does not have yet stays grey."""
    layers, levels, scales = attention.shape
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for layer, axis in enumerate(axes):
        axis.set_visible(layer < layers)
        if layer < layers:
            axis.imshow(attention[layer], aspect="auto", vmin=0, vmax=np.nanmax(attention))
            axis.set_facecolor("0.85")
            axis.set_title(f"layer {layer + 1}", weight="normal", size=7)
            axis.set_xticks(range(scales), _scale_names(scales), size=6)
            axis.set_yticks(range(levels), range(1, levels + 1), size=6)
            axis.tick_params(length=0)
    axes[0].set_ylabel("level", size=7)
    figure.suptitle(f"Layer by layer (brightest: {np.nanmax(attention):.2f}; grey: no such scale yet)", size=9, weight="bold")


def _scale_names(scales: int) -> list[str]:
    return [f"S{i}" for i in range(1, scales + 1)]
