"""Bars: the use of the codebook by level, and the ablations of Tables 2 to 5."""

import math
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from restok.reporting.cells import number, read_csv, short
from restok.reporting.figures.common import SMALL, drawing, ends, reach, sources, wants_log
from restok.reporting.inputs import Inputs
from restok.reporting.measured import best
from restok.reporting.run import fault, require_metric
from restok.reporting.tables.table import PAPERS, Table, one

UNKNOWN = (math.nan, math.nan)                                  # the interval of too few images
QUANTITIES = {"rfid": "C0", "entropy": "C2", "gfid": "C1"}     # of an ablation, and their colours


def codebook_data(inputs: Inputs, item: str) -> pd.DataFrame:
    """Use and entropy (Eq. 5-6, in bits) of the codebook by level, with 95 % intervals, at the best checkpoint, of its first
    seed, over the reconstructed images. `most_usage` and `most_entropy` are what their number allows: n images use at most n
    codes of a level of one token."""
    row = best(inputs.tree, item)
    chosen, size = row.first, row.params.tokenizer.codebook_size
    n = chosen.reconstruction["n"]
    levels = require_metric(chosen.reconstruction, "codebook")["levels"]
    intervals = chosen.reconstruction["intervals"]["codebook"]["levels"]
    return pd.DataFrame([{
        "checkpoint": chosen.label,
        **{key: level[key] for key in ("level", "tokens", "used", "dead")},
        "usage": level["usage"],
        "usage_low": (interval["usage"] or UNKNOWN)[0],
        "usage_high": (interval["usage"] or UNKNOWN)[1],
        "most_usage": min(1.0, n * level["tokens"] / size),
        "entropy": level["entropy"],
        "entropy_low": (interval["entropy"] or UNKNOWN)[0],
        "entropy_high": (interval["entropy"] or UNKNOWN)[1],
        "most_entropy": math.log2(min(size, n * level["tokens"])),
        "n": n,
        "source": chosen.reconstruction.path.as_posix(),
    } for level, interval in zip(levels, intervals, strict=True)])


def codebook_table(inputs: Inputs, item: str) -> Table:
    """The numbers below the figure of the codebook."""
    data = codebook_data(inputs, item)
    titles = {"level": "level", "tokens": "tokens", "used": "codes used", "usage": "use of the codebook (share)",
              "entropy": "entropy (bits)"}
    return Table(data, [(title, [short(cell) for cell in data[name]]) for name, title in titles.items()],
                 [f"Checkpoint {one(data['checkpoint'])}, over {one(data['n'])} reconstructions."])


def codebook(inputs: Inputs, item: str, out: Path) -> None:
    """Use and entropy by level, each with its 95 % interval and a line at the most that it could be."""
    data = codebook_data(inputs, item)
    ticks = [f"{level}\n({tokens})" for level, tokens in zip(data["level"], data["tokens"], strict=True)]
    with drawing(7.2, 3.0, out, data, *sources(data)) as figure:
        for axis, column, scale, title, colour in zip(figure.subplots(1, 2), ("usage", "entropy"), (100, 1),
                                                      ("codes used (%)", "entropy (bits)"), ("C0", "C2"), strict=True):
            values, low, high, most = (scale * data[name] for name in (column, f"{column}_low", f"{column}_high",
                                                                       f"most_{column}"))
            bars = axis.bar(data["level"], values, yerr=reach(values, low, high), color=colour, width=0.7,
                            error_kw={"elinewidth": 1})
            axis.bar_label(bars, fmt="{:.3g}", padding=3, size=SMALL, bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8})
            lines = axis.hlines(most, data["level"] - 0.42, data["level"] + 0.42, color="black", linewidth=1.2)
            axis.set_xticks(data["level"], ticks)
            axis.set_xlabel("level (its tokens)")
            axis.set_ylim(0, 1.12 * most.max() or 1)         # of one image and one token, entropy is 0 at most
            axis.set_title(title, loc="left")
            axis.grid(axis="y")
        figure.legend([lines, bars.errorbar], ["most that the number of images allows", "95 % interval"],
                      loc="outside upper right", ncols=2)


def chart(table_csv: str | Path, out: str | Path) -> None:
    """Tables 2 to 5 as bars: a panel a quantity that was measured, a row a setting, in the table's order.

    Reads `setting`, `description`, `changes` and `n_seeds`; of rfid, entropy and gfid the value, `_sd` or `_low` and `_high`,
    `_paper` and `_metric`. A blank cell is unknown, and so is a column that is absent. The table is the data: no CSV is
    written. The paper's values are drawn where the table's are of the paper's metric: on another's axis they would say nothing.
    """
    table = read_csv(table_csv)
    for column in ("setting", "description", "n_seeds"):
        if column not in table:
            raise fault(Path(table_csv), f"has no column {column!r}")
    panels = {name: frame for name in QUANTITIES if (frame := _quantity(table, name, Path(table_csv)))["value"].notna().any()}
    if not panels:
        raise fault(Path(table_csv), f"has no value of {', '.join(QUANTITIES)} to draw")
    described = [fill(text.replace(" = ", "\u00a0=\u00a0"), 36) for text in _told_apart(table)]
    lines = max(2 + text.count("\n") for text in described)
    with drawing(2.2 + 1.8 * len(panels), 1.1 + len(table) * (0.13 * lines + 0.06), out, None, table_csv) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (name, frame) in zip(axes, panels.items(), strict=True):
            _bars(axis, frame, QUANTITIES[name])
        axes[0].set_yticks(range(len(table)), [""] * len(table))
        axes[0].set_ylim(len(table) - 0.4, -0.6)
        for place, (setting, text) in enumerate(zip(table["setting"], described, strict=True)):
            _label(axes[0], place, setting, text)
        handles = _legend(pd.concat(panels.values()))
        if handles:
            figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _told_apart(table: pd.DataFrame) -> list[str]:
    """The descriptions; of a row that has that of one above it, such as a row of one's own, with what it changes."""
    changes = table["changes"] if "changes" in table else [""] * len(table)
    rows = zip(table["description"], changes, table["description"].duplicated(), strict=True)
    return [f"{text}; {own}".strip("; ") if again else text for text, own, again in rows]


def _quantity(table: pd.DataFrame, name: str, path: Path) -> pd.DataFrame:
    """One quantity's numbers, by row: value, low and high (where its bar ends), seeds, and the paper's value if it compares."""
    columns = [name, *(f"{name}_{end}" for end in ("sd", "low", "high", "paper")), "n_seeds"]
    try:
        cells = table.reindex(columns=columns).replace("", None).astype(float)
    except ValueError as error:
        raise fault(path, f"{name}: {error}") from None
    if np.isinf(cells).to_numpy().any():
        raise fault(path, f"{name}: infinite, which no bar can show")
    metric = table[f"{name}_metric"] if f"{name}_metric" in table else pd.Series(name, table.index)
    low, high = ends(cells, name)
    slack = 1e-6 * cells[name].abs().clip(lower=1)               # what rounding may take away
    if ((cells[name] < low - slack) | (cells[name] > high + slack)).any():
        raise fault(path, f"{name}: a value lies outside its own interval, or a deviation is negative")
    paper = cells[f"{name}_paper"].where(metric == (PAPERS[name][1] if name in PAPERS else name))
    return pd.DataFrame({"value": cells[name], "sd": cells[f"{name}_sd"], "low": low, "high": high, "paper": paper,
                         "seeds": cells["n_seeds"], "metric": one(metric) or name})


def _label(axis, place: int, setting: str, text: str) -> None:
    """A row's name in bold and, under it, its description: two texts of as many lines, one over the other."""
    under = "\n" * (1 + text.count("\n")) if text else ""
    for block, style in ((setting + under, {"weight": "bold"}), (f"\n{text}" if text else "", {"color": "0.3"})):
        axis.annotate(block, (0, place), xycoords=("axes fraction", "data"), xytext=(-5, 0), textcoords="offset points",
                      ha="right", va="center", size=SMALL, parse_math=False, **style)


def _bars(axis, frame: pd.DataFrame, colour: str) -> None:
    """One panel; the values stand in a column of their own, where neither bars nor marks reach."""
    y = np.arange(len(frame))
    axis.barh(y, frame["value"], xerr=reach(frame["value"], frame["low"], frame["high"]), color=colour, height=0.7, alpha=0.85,
              error_kw={"elinewidth": 1})
    axis.plot(frame["paper"], y, "D", color="C3", markersize=5, markeredgecolor="black", markeredgewidth=0.6)
    metric = frame["metric"].iloc[0]
    axis.set_xlabel(f"{'entropy (bits)' if metric == 'entropy' else metric}\n(lower is better)", parse_math=False)
    if wants_log(frame["value"], frame["paper"]):
        axis.set_xscale("log")
        ends = frame[["value", "low", "paper"]].to_numpy(float)
        axis.set_xlim(left=np.nanmin(ends[ends > 0]) / 2)
    for place, row in enumerate(frame.itertuples()):
        axis.annotate(_shown(row.value, row.sd), (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center", size=SMALL)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _shown(value: float, sd: float) -> str:
    """A mean to the second digit of its deviation, '8.05 ± 0.40'; without one, four digits; NaN is blank."""
    if np.isnan(value):
        return ""
    if not sd > 0:
        return number(value)
    decimals = max(0, 1 - math.floor(math.log10(sd)))
    return f"{value:.{decimals}f} ± {sd:.{decimals}f}"


def _legend(drawn: pd.DataFrame) -> list[Line2D]:
    """What the marks are, as far as there are some."""
    seeds = sorted({int(n) for n in drawn.loc[drawn["sd"].notna(), "seeds"] if n > 1})
    bars = [f"standard deviation over {' or '.join(map(str, seeds))} seeds"] if seeds else []
    if (drawn["low"].notna() & drawn["sd"].isna()).any():
        bars.append("95 % interval (one seed)")
    handles = []
    if bars:
        handles.append(Line2D([], [], color="black", linewidth=1, marker="|", label="; ".join(bars)))
    if drawn["paper"].notna().any():
        handles.append(Line2D([], [], color="C3", marker="D", linewidth=0, markeredgecolor="black", markeredgewidth=0.6,
                              label="the paper"))
    return handles
