"""Tables 1, 6 and 10: whole systems, and the guidance behind them."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from restok.config.load import ConfigError
from restok.experiments import Sheet
from restok.reporting.measured import Row, guidance, lowest, rows
from restok.reporting.run import chosen_candidate, require_metric
from restok.reporting.tables.cells import count, number, spread
from restok.reporting.tables.orders import agreement
from restok.reporting.tables.published import Published

TABLE1 = {"method": "", "family": "family", "tokenizer_type": "tokenizer_type", "tokenizer_params": "tokenizer_params",
          "tokens": "tokens", "reconstruction_distance": "rfid", "generator_type": "generator_type",
          "generator_params": "generator_params", "steps": "steps", "generation_distance": "gfid", "score": "is",
          "precision": "precision", "recall": "recall", "intervals": "", "features": "", "n": "", "notes": "notes",
          "source": ""}    # columns, and the published quantity in each
GUIDANCE = ("schedule", "start_ratio", "max_scale", "top_k", "top_p")


def table1(results: Path, sheet: Sheet, published: Published) -> pd.DataFrame:
    """Table 1. The published systems, as printed, and below them each row of the sheet that feeds it, at its best checkpoint,
    each number the mean over its seeds. Cells are text; unknown is blank.

    `features` says which network measured a row, and by which metrics: rows with different features do not compare.
    `intervals` are the 95 % intervals of our own values, of one seed; of several, `notes` has their standard deviations.
    """
    theirs = [{column: published.value("table1", name, quantity) for column, quantity in TABLE1.items()}
              | {"method": name, "features": "Inception (rFID, FID, IS)", "source": published.source("table1", name, "gfid")}
              for name in published.rows("table1")]
    return pd.DataFrame([*theirs, *_own_rows(results, sheet)], columns=list(TABLE1))


def table6(results: Path, sheet: Sheet, published: Published) -> pd.DataFrame:
    """Table 6. The guidance of each tokenizer checkpoint that is trained here, one row a seed, with the distance by which the
    search chose it, and the paper's. `guidance` is 'searched', or 'set' by the parameters and its distance blank."""
    found = []
    for _, trial, label in sheet.feeding("table6"):
        if trial.tokenizer:
            continue
        chosen, record = guidance(results, sheet, trial, label)
        sampling = trial.params.sampling
        row = {"checkpoint": label, "schedule": chosen.schedule, "start_ratio": chosen.start, "max_scale": chosen.scale,
               "top_k": record["top_k"] if record else sampling.top_k, "top_p": record["top_p"] if record else sampling.top_p,
               "guidance": "searched" if record else "set",
               **published.beside("table6", label, GUIDANCE), "metric": "", "distance": None, "interval": "", "n": "",
               "candidates": "", "seed": trial.seed, "source": f"params/{sheet.run}.yaml"}
        if record:
            candidate, metric = chosen_candidate(record), record["metric"]
            row |= {"metric": metric, "distance": require_metric(candidate, metric),
                    "interval": spread(candidate["intervals"][metric]), "n": candidate["n"],
                    "candidates": len(record["candidates"]), "source": record.path.as_posix()}
        found.append(row)
    if not found:
        raise ConfigError(f"experiments: no row feeds table6 for {sheet.run}; name table6 among the feeds of one")
    return pd.DataFrame(found)


def table10(results: Path, sheet: Sheet, published: Published, orders_csv: str | Path) -> pd.DataFrame:
    """Table 10. HAR and vanilla autoregression on one tokenizer: the guidance used, steps, and gfid, is, precision and recall,
    each with `_sd` or `_low` and `_high` as in the ablations, and `_paper`. Raises ConfigError for a row without generator."""
    found = rows(results, sheet, "table10")
    for row in found:
        if row.first.generator is None:
            raise ConfigError(f"experiments: row {row.trials[0].id!r} feeds table10 without a generator; name its folder")
    agrees = agreement("table10", found, orders_csv, published.rows("table10"))
    return pd.DataFrame([_generator_row(results, sheet, row, published, agrees.get(row.key, "")) for row in found])


def _generator_row(results: Path, sheet: Sheet, row: Row, published: Published, agrees: str) -> dict:
    label = row.first.label
    guided = [guidance(results, sheet, trial, label) for trial in row.trials]
    found = {
        "setting": row.key,
        "checkpoint": label,
        "generator_params": count(row.first.generator["parameters"]),
        "steps": row.first.generator["sampling_steps"],
        "steps_paper": published.value("table10", row.key, "steps"),
        "schedule": _each(chosen.schedule for chosen, _ in guided),
        "start_ratio": _each(f"{chosen.start:g}" for chosen, _ in guided),
        "max_scale": _each(f"{chosen.scale:g}" for chosen, _ in guided),
        "guidance": _each("searched" if record else "set" for _, record in guided),
        **published.beside("table10", row.key, ("schedule", "max_scale")),
    }
    for quantity in ("gfid", "is", "precision", "recall"):
        found |= row.summary(quantity) | published.beside("table10", row.key, [quantity])
    return found | {"agrees": agrees, "score_metric": row.first.score} | row.about


def _each(texts: Iterable[str]) -> str:
    """One text where the seeds agree."""
    return "; ".join(dict.fromkeys(texts))


def _own_rows(results: Path, sheet: Sheet) -> list[dict[str, str]]:
    of_each = {}
    for row in rows(results, sheet, "table1", unnamed=True):
        of_each.setdefault(row.trials[0].id, []).append(row)
    return [_own_row(sheet.run, lowest(found)) for found in of_each.values()]


def _own_row(run: str, row: Row) -> dict[str, str]:
    trial, first = row.trials[0], row.first
    tokens = row.params.tokenizer.latents
    shown = {"reconstruction_distance": ("rfid", first.reconstruction_distance)}
    found = {
        "method": f"ResTok, {row.name or ('this run' if trial.name == run else trial.id)} ({run}, {first.label})",
        "family": "query",
        "tokenizer_type": "VQ",
        "tokenizer_params": count(first.tokenizer["parameters"]),
        "tokens": str(tokens),
        "features": first.features,
        "n": str(first.records[-1]["n"]),
        "source": row.about["source"],
    }
    if first.generation:
        steps = first.generator["sampling_steps"]
        found |= {"generator_type": "AR" if steps == tokens else "HAR", "steps": str(steps),
                  "generator_params": count(first.generator["parameters"])}
        shown |= {"generation_distance": ("gfid", first.distance), "score": ("is", first.score),
                  "precision": ("precision", "precision"), "recall": ("recall", "recall")}
    values = {metric: [row.summary(quantity)[f"{quantity}{end}"] for end in ("", "_sd", "_low", "_high")]
              for quantity, metric in shown.values()}
    found |= {column: number(values[metric][0]) for column, (_, metric) in shown.items()}
    intervals = {metric: (low, high) for metric, (*_, low, high) in values.items() if low is not None}
    deviations = {metric: sd for metric, (_, sd, *_) in values.items() if sd is not None}
    return dict.fromkeys(TABLE1, "") | found | {
        "intervals": "; ".join(f"{metric} {spread(interval)}" for metric, interval in intervals.items()),
        "notes": "; ".join(_notes(row, deviations))}


def _notes(row: Row, deviations: dict[str, float]) -> list[str]:
    """What Table 1 says of a row of ours."""
    trial, about = row.trials[0], row.about
    found = _as_adm(row) if row.first.generation else []
    if about["n_seeds"] > 1:
        found.append(f"mean of {about['n_seeds']} seeds ({about['seeds']}), whose standard deviations are "
                     + ", ".join(f"{metric} {sd:.2g}" for metric, sd in deviations.items()))
    found.append(f"reconstruction of {about['reconstruction_n']} images against {about['reconstruction_reference']}")
    if trial.tokenizer:
        found.append(f"finished weights: {', '.join(filter(None, (trial.tokenizer, trial.generator)))}")
    return [*found, f"samples against {about['generation_reference']}"] if about["generation_reference"] else found


def _as_adm(row: Row) -> list[str]:
    """Precision and recall as the published ones are computed, where they were measured so."""
    names = [name for name in ("precision", "recall") if f"{name} adm-fp16" in row.first.generation["metrics"]]
    found = {name: row.summary(f"{name} adm-fp16")[f"{name} adm-fp16"] for name in names}
    texts = [f"{name} {number(value)}" for name, value in found.items() if value is not None]
    return [f"as ADM rounds distances, {', '.join(texts)}"] if texts else []
