"""Fig. 7 and the guidance search: distances as curves, with their spread."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from restok.config import Params
from restok.experiments import Sheet
from restok.reporting.figures.common import STYLE, save, sources, wants_log
from restok.reporting.measured import checkpoints
from restok.reporting.run import Evaluation, Record, ReportError, chosen_candidate, comparable, read, require_metric

RING = {"marker": "o", "markersize": 13, "fillstyle": "none", "color": "black", "linewidth": 0, "markeredgewidth": 1}


def fig7_runs(results: str | Path, sheet: Sheet) -> list[tuple[int, list[Evaluation]]]:
    """What feeds Fig. 7, as `fig7_data` takes it: each seed of one row of the sheet, with its checkpoints. Raises what
    `restok.reporting.measured.checkpoints` raises."""
    found = {}
    for row in checkpoints(Path(results), sheet, "fig7"):
        for trial, evaluation in zip(row.trials, row.measured, strict=True):
            found.setdefault(trial.seed, []).append(evaluation)
    return list(found.items())


def fig7_data(runs: Sequence[tuple[int, Sequence[Evaluation]]], params: Params) -> pd.DataFrame:
    """Fig. 7's numbers, one row a checkpoint of the tokenizer, from one or more (seed, its evaluations).

    Of one run, `_low` and `_high` bound the 95 % interval of a distance; of several, a distance is their mean, `_sd` its
    standard deviation (n - 1). Raises ComparisonError where runs were not measured alike, ReportError where one lacks a
    checkpoint.
    """
    table = []
    for label, step in params.tokenizer_training.checkpoints.items():
        found = [_of(label, seed, measured) for seed, measured in runs]
        first = found[0]
        comparable(found)
        table.append({
            "checkpoint": label,
            "step": step,
            "reconstruction_metric": first.reconstruction_distance,
            "generation_metric": first.distance,
            **_spread("reconstruction_distance", [e.reconstruction for e in found], first.reconstruction_distance),
            **_spread("generation_distance", [e.generation for e in found], first.distance),
            "reconstruction_accuracy": _mean([e.reconstruction["metrics"]["class_accuracy"] for e in found]),
            "generation_accuracy": _mean([e.generation["metrics"]["class_accuracy"] for e in found]),
            "features": first.features,
            "reconstruction_n": first.reconstruction["n"],
            "generation_n": first.generation["n"],
            "n_seeds": len(found),
            "seeds": " ".join(str(seed) for seed, _ in runs),
            "source": "; ".join(path.as_posix() for e in found for path in (e.reconstruction.path, e.generation.path)),
        })
    return pd.DataFrame(table)


def fig7(data: pd.DataFrame, out: str | Path) -> None:
    """Fig. 7. Both distances of `fig7_data` against the tokenizer's iterations; a ring marks the chosen checkpoint, of the best
    generation. Bars are 95 % intervals or, of several seeds, one standard deviation up and down.

    Where they span more than a factor of 10, both axes are one logarithmic scale: the later checkpoints would lie flat.
    """
    chosen = data.loc[data["generation_distance"].idxmin()]
    lows, highs = _ends(data, "reconstruction_distance"), _ends(data, "generation_distance")
    ends = pd.concat([*lows, *highs]).dropna()
    log = wants_log(data["reconstruction_distance"], data["generation_distance"])
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(5.2, 3.4))
        left = figure.subplots()
        right = left.twinx()
        right.spines["right"].set_visible(True)
        aside = 0.008 * (data["step"].max() - data["step"].min())       # neither bar hides the other
        lines = []
        for axis, stage, colour, style, x in ((left, "reconstruction", "C0", "o-", data["step"] - aside),
                                              (right, "generation", "C1", "s--", data["step"] + aside)):
            distance = data[f"{stage}_distance"].astype(float)
            low, high = _ends(data, f"{stage}_distance")
            lines.append(axis.errorbar(x, distance, (distance - low, high - distance), fmt=style, color=colour, elinewidth=1,
                                       label=stage))
            axis.set_ylabel(f"{stage} {chosen[f'{stage}_metric']} (lower is better)", color=colour)
            axis.tick_params(axis="y", which="both", colors=colour)
            axis.margins(y=0.15)
            if log:
                axis.set(yscale="log", ylim=(ends[ends > 0].min() / 1.5, ends.max() * 1.5))
        lowest = chosen["generation_distance"]
        lines += right.plot(chosen["step"] + aside, lowest, **RING, label=f"chosen: {chosen['checkpoint']}, {lowest:.4g}")
        left.set_xticks(data["step"], data["checkpoint"])
        left.set_xlabel("tokenizer training iterations")
        left.grid(axis="y")
        figure.legend(handles=lines, loc="outside upper center", ncols=3, title=_called(data), title_fontsize=8)
        save(figure, out, data, *sources(data))


def guidance_data(run_dir: str | Path, params: Params) -> pd.DataFrame:
    """The guidance search, one row a candidate of a checkpoint; `low` and `high` bound the distance's 95 % interval. Raises
    ReportError where the parameters set the guidance."""
    if params.sampling.guidance:
        raise ReportError("figure guidance: the parameters set sampling.guidance, so that nothing is searched; set it to null")
    table = []
    for label in params.tokenizer_training.checkpoints:
        found = read(Path(run_dir) / "guidance" / f"{label}.json")
        best, metric = chosen_candidate(found), found["metric"]
        for candidate in found["candidates"]:
            low, high = candidate["intervals"][metric] or (None, None)
            table.append({"checkpoint": label, "schedule": candidate["schedule"], "start": candidate["start"],
                          "scale": candidate["scale"], "metric": metric, "distance": require_metric(candidate, metric),
                          "low": low, "high": high, "chosen": candidate is best, "n": candidate["n"],
                          "source": found.path.as_posix()})
    return pd.DataFrame(table)


def guidance(data: pd.DataFrame, out: str | Path) -> None:
    """The search of `guidance_data`: distance against the largest scale, a panel a checkpoint, a line a schedule (and start).
    Every line sets out from scale 1, which is no guidance; a ring marks the chosen setting."""
    labels = list(dict.fromkeys(data["checkpoint"]))
    columns = min(2, len(labels))
    lines = math.ceil(len(labels) / columns)
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.1 * lines + 0.5))
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
        handles = {}
        for axis, label in zip(axes, labels, strict=False):
            of_label = data[data["checkpoint"] == label]
            handles |= _search(axis, of_label)
            axis.set_title(label, loc="left")
            axis.grid(axis="y")
            if wants_log(of_label["distance"]):
                axis.set_yscale("log")
        for axis in axes[len(labels):]:
            axis.set_visible(False)
        figure.supxlabel("largest guidance scale", size=8)
        figure.supylabel(f"{data['metric'].iloc[0]} (lower is better)", size=8)
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=3 * columns,
                      title="Bars and band: 95 % intervals", title_fontsize=8)
        save(figure, out, data, *sources(data))


def _search(axis, data: pd.DataFrame) -> dict:
    """One checkpoint's panel; returns what the legend needs, by label."""
    handles = {}
    none, guided = data[data["scale"] == 1], data[data["scale"] != 1]
    for candidate in none.itertuples():
        handles["no guidance"] = axis.axhline(candidate.distance, color="0.35", linestyle="--", linewidth=1)
        if pd.notna(candidate.low):
            axis.axhspan(candidate.low, candidate.high, color="0.5", alpha=0.15, linewidth=0)
    lines = list(guided.groupby(["schedule", "start"], sort=False))
    aside = 0.015 * (data["scale"].max() - min(data["scale"].min(), 1))
    places = dict.fromkeys(none.index, 1)
    for i, ((schedule, start), line) in enumerate(lines):
        name, line = f"{schedule} from {start:g}" if schedule == "step" else schedule, line.sort_values("scale")
        x = line["scale"] + aside * (i - (len(lines) - 1) / 2)                             # no bar hides another
        places |= dict(zip(line.index, x, strict=True))
        axis.plot([*none["scale"], *x], [*none["distance"], *line["distance"]], color=f"C{i}", linewidth=1.2)
        bars = (line["distance"] - line["low"].astype(float), line["high"].astype(float) - line["distance"])
        handles[name] = axis.errorbar(x, line["distance"], bars, fmt="os^Dv"[i % 5], color=f"C{i}", markersize=4,
                                      elinewidth=0.8, capsize=1.5)
    chosen = data[data["chosen"]].iloc[0]
    handles["chosen"], = axis.plot(places[chosen.name], chosen["distance"], **RING, clip_on=False)
    return handles


def _of(label: str, seed: int, measured: Sequence[Evaluation]) -> Evaluation:
    for evaluation in measured:
        if evaluation.label == label:
            return evaluation
    raise ReportError(f"seed {seed}: checkpoint {label} is not among the evaluated {[e.label for e in measured]}; evaluate it")


def _spread(name: str, records: Sequence[Record], metric: str) -> dict[str, float | None]:
    """Of one run, its value and interval; of several, their mean and deviation."""
    values = [require_metric(record, metric) for record in records]
    low, high = records[0]["intervals"][metric] or (None, None)
    one = len(values) == 1
    return {name: mean(values), f"{name}_low": low if one else None, f"{name}_high": high if one else None,
            f"{name}_sd": None if one else stdev(values)}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else mean(values)


def _ends(data: pd.DataFrame, name: str) -> tuple[pd.Series, pd.Series]:
    """Where the bars of a distance end; NaN where there is none."""
    distance, low, high, sd = (data[f"{name}{end}"].astype(float) for end in ("", "_low", "_high", "_sd"))
    return low.fillna(distance - sd), high.fillna(distance + sd)


def _called(data: pd.DataFrame) -> str:
    """What the bars are."""
    seeds = data["n_seeds"].iloc[0]
    return "Bars: 95 % intervals (one seed)" if seeds == 1 else f"Bars: standard deviation over {seeds} seeds"
