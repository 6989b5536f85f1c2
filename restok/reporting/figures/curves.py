"""Fig. 7 and the guidance search: distances as curves, with their spread."""

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import pandas as pd

from restok.experiments.trials import MAIN
from restok.reporting.cells import frame
from restok.reporting.figures.common import drawing, ends, reach, sources, wants_log
from restok.reporting.inputs import Inputs
from restok.reporting.measured import Row, checkpoints, chosen_guidance
from restok.reporting.run import ReportError, chosen_candidate, require_metric
from restok.reporting.tables.orders import claims, joined
from restok.reporting.tables.table import Table, column, one, seeds
from restok.stages.search import cost, drawn, finalists_of

RING = {"marker": "o", "markersize": 13, "fillstyle": "none", "color": "black", "linewidth": 0, "markeredgewidth": 1}


def fig7_data(inputs: Inputs, item: str) -> pd.DataFrame:
    """Fig. 7's numbers, one row a checkpoint of the tokenizer; distances with `_sd` or `_low` and `_high`."""
    return frame(_fig7_rows(checkpoints(inputs.tree, item)))


def _fig7_rows(measured: Sequence[Row]) -> list[dict]:
    return [{
        "checkpoint": row.first.label,
        "step": row.first.step,
        "reconstruction_metric": row.first.metric("rfid"),
        "generation_metric": row.first.metric("gfid"),
        "reconstruction_distance": row.measure("rfid"),
        "generation_distance": row.measure("gfid"),
        "unguided_distance": row.measure("gfid_unguided"),
        "reconstruction_accuracy": row.measure("reconstruction class_accuracy").value,
        "generation_accuracy": row.measure("class_accuracy").value,
        **{name: row.about[name] for name in ("features", "reconstruction_n", "generation_n", "n_seeds", "seeds", "source")},
    } for row in measured]


def fig7_table(inputs: Inputs, item: str) -> Table:
    """The numbers below Fig. 7, and the paper's order of its checkpoints."""
    measured = checkpoints(inputs.tree, item)
    rows, said = _fig7_rows(measured), claims(inputs, item, measured)
    notes = [f"The paper's order, of {label}: {joined(said, label)}." for label in dict.fromkeys(claim.row for claim in said)]
    return Table(frame(rows), [
        *((name, column(rows, name)) for name in ("checkpoint", "step")),
        *((f"{stage} {one(column(rows, f'{stage}_metric'))} ↓", column(rows, f"{stage}_distance"))
          for stage in ("reconstruction", "generation")),
        (f"generation {one(column(rows, 'generation_metric'))} without guidance ↓", column(rows, "unguided_distance"))],
        [seeds(rows), *notes])


def fig7(inputs: Inputs, item: str, out: Path) -> None:
    """Fig. 7. Both distances against the tokenizer's iterations, that of samples with guidance and without; a ring marks the
    chosen checkpoint, of the best generation with it. Bars are 95 % intervals or, of several seeds, one standard deviation up
    and down. Where they span more than a factor of 10, both axes are one logarithmic scale: the later checkpoints would lie
    flat."""
    data = fig7_data(inputs, item)
    chosen = data.loc[data["generation_distance"].idxmin()]
    distances = [f"{name}_distance" for name in ("reconstruction", "generation", "unguided")]
    limits = pd.concat([end for name in distances for end in ends(data, name)]).dropna()
    log = wants_log(*(data[name] for name in distances))
    with drawing(5.2, 3.4, out, data, *sources(data)) as figure:
        left = figure.subplots()
        right = left.twinx()
        right.spines["right"].set_visible(True)
        aside = 0.008 * (data["step"].max() - data["step"].min())       # neither bar hides the other
        lines = []
        for axis, stage, colour, style, x in ((left, "reconstruction", "C0", "o-", data["step"] - aside),
                                              (right, "generation", "C1", "s--", data["step"] + aside),
                                              (right, "unguided", "C1", "^:", data["step"])):
            distance = data[f"{stage}_distance"].astype(float)
            low, high = ends(data, f"{stage}_distance")
            lines.append(axis.errorbar(x, distance, reach(distance, low, high), fmt=style, color=colour, elinewidth=1,
                                       markerfacecolor="white" if stage == "unguided" else colour,
                                       label="generation without guidance" if stage == "unguided" else stage))
            axis.tick_params(axis="y", which="both", colors=colour)
            axis.margins(y=0.15)
            if log:
                axis.set(yscale="log", ylim=(limits[limits > 0].min() / 1.5, limits.max() * 1.5))
        for axis, stage, colour in ((left, "reconstruction", "C0"), (right, "generation", "C1")):
            axis.set_ylabel(f"{stage} {chosen[f'{stage}_metric']} (lower is better)", color=colour, parse_math=False)
        lowest = chosen["generation_distance"]
        lines += right.plot(chosen["step"] + aside, lowest, **RING, label=f"chosen: {chosen['checkpoint']}, {lowest:.4g}")
        left.set_xticks(data["step"], data["checkpoint"])
        left.set_xlabel("tokenizer training iterations")
        left.grid(axis="y")
        n = data["n_seeds"].iloc[0]
        bars = "95 % intervals (one seed)" if n == 1 else f"standard deviation over {n} seeds"
        figure.legend(handles=lines, loc="outside upper center", ncols=2, title=f"Bars: {bars}", title_fontsize=8)


def guidance_data(inputs: Inputs, item: str) -> pd.DataFrame:
    """The search for guidance of what feeds an item, one row a candidate of a checkpoint, then one a finalist, which `round`
    tells apart; `low` and `high` bound the distance's 95 % interval. What has no distance has a blank. Raises ReportError where
    the parameters set the guidance."""
    rows = []
    for _, trial, label in inputs.tree.sheet.feeding(item):
        if trial.name != MAIN:
            continue
        _, record = chosen_guidance(inputs.tree, trial, label)
        if record is None:
            raise ReportError(f"figure {item}: the parameters set sampling.guidance, so that nothing is searched; set it to "
                              "null")
        best, metric = chosen_candidate(record), record["metric"]
        require_metric(best, metric)
        rounds = {"candidate": record["candidates"], "finalist": finalists_of(record)}
        for name, candidate in ((name, candidate) for name, found in rounds.items() for candidate in found):
            low, high = candidate["intervals"][metric] or (None, None)
            rows.append({"checkpoint": label, "round": name, "schedule": candidate["schedule"], "start": candidate["start"],
                         "scale": candidate["scale"], "metric": metric, "distance": candidate["metrics"][metric],
                         "low": low, "high": high, "chosen": candidate is best, "n": candidate["n"],
                         "search_samples": drawn(record), "source": record.path.as_posix()})
    return pd.DataFrame(rows).astype({"distance": float, "low": float, "high": float})


def guidance_search(inputs: Inputs, item: str, out: Path) -> None:
    """Distance against the largest scale, a panel a checkpoint, a line a schedule (and start). Every line sets out from scale
    1, which is no guidance. Finalists stand apart, as diamonds: on more samples a distance is lower. A ring marks the chosen
    setting."""
    data = guidance_data(inputs, item)
    labels = list(dict.fromkeys(data["checkpoint"]))
    columns = min(2, len(labels))
    lines = math.ceil(len(labels) / columns)
    title = [line for text in _search_notes(data) for line in wrap(text, 58 * columns)]
    with drawing(3.6 * columns, 2.1 * lines + 0.4 + 0.14 * len(title), out, data, *sources(data)) as figure:
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
        handles = {}
        for axis, label in zip(axes, labels, strict=False):
            of_label = data[data["checkpoint"] == label]
            handles |= _search(axis, of_label)
            axis.set_title(label, loc="left")
            axis.grid(axis="y")
            if wants_log(of_label["distance"].dropna()):
                axis.set_yscale("log")
        for axis in axes[len(labels):]:
            axis.set_visible(False)
        figure.supxlabel("largest guidance scale", size=8)
        figure.supylabel(f"{data['metric'].iloc[0]} (lower is better)", size=8, parse_math=False)
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=3 * columns, title="\n".join(title),
                      title_fontsize=8)


def _search_notes(data: pd.DataFrame) -> list[str]:
    """What the marks are, and what the search cost."""
    counts = {name: " or ".join(f"{n:,}" for n in found["n"].unique()) for name, found in data.groupby("round")}
    notes = ["Bars and band: 95 % intervals."]
    if "finalist" in counts:
        notes += [f"Lines: candidates, over {counts['candidate']} samples. Diamonds: finalists, over {counts['finalist']}, "
                  "which lowers a distance on average."]
    return [*notes, *(f"A checkpoint: {cost(samples)}." for samples in data["search_samples"].unique().tolist())]


def _search(axis, data: pd.DataFrame) -> dict:
    """One checkpoint's panel; returns what the legend needs, by label."""
    handles, guided = {}, data["scale"] != 1
    lines = list(dict.fromkeys(zip(data["schedule"][guided], data["start"][guided], strict=True)))
    aside = 0.015 * (data["scale"].max() - min(data["scale"].min(), 1))
    data = data.assign(x=[row.scale if row.scale == 1 else row.scale + aside * (
        lines.index((row.schedule, row.start)) - (len(lines) - 1) / 2) for row in data.itertuples()])     # no bar hides another
    measured = data[data["distance"].notna()]
    first, finals = (measured[measured["round"] == name] for name in ("candidate", "finalist"))
    none = first[first["scale"] == 1]
    for candidate in none.itertuples():
        handles["no guidance"] = axis.axhline(candidate.distance, color="0.35", linestyle="--", linewidth=1)
        if pd.notna(candidate.low):
            axis.axhspan(candidate.low, candidate.high, color="0.5", alpha=0.15, linewidth=0)
    for i, (schedule, start) in enumerate(lines):
        name = f"{schedule} from {start:g}" if schedule == "step" else schedule
        line = first[(first["schedule"] == schedule) & (first["start"] == start) & (first["scale"] != 1)].sort_values("scale")
        axis.plot([*none["x"], *line["x"]], [*none["distance"], *line["distance"]], color=f"C{i}", linewidth=1.2)
        handles[name] = _points(axis, line, fmt="os^Dv"[i % 5], color=f"C{i}", markersize=4)
    if len(finals):
        handles["finalists"] = _points(axis, finals, fmt="d", color="black", markersize=6)
    chosen = measured[measured["chosen"]].iloc[0]
    handles["chosen"], = axis.plot(chosen["x"], chosen["distance"], **RING, clip_on=False)
    return handles


def _points(axis, data: pd.DataFrame, **style):
    bars = reach(data["distance"], data["low"], data["high"])
    return axis.errorbar(data["x"], data["distance"], bars, elinewidth=0.8, capsize=1.5, **style)
