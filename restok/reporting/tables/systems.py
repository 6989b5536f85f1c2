"""Tables 1, 6 and 10: whole systems, and the guidance behind them."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from restok.experiments import Sheet, Trial
from restok.params import ConfigError
from restok.reporting.measured import Row, guidance, measured, require_alike, rows, sources
from restok.reporting.run import Evaluation, chosen_candidate, lowest, require_metric
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
    """Table 1. The published systems, as printed, and below them each row of the sheet that feeds it, at its best checkpoint
    and with its first seed. Cells are text; unknown is blank.

    `features` says which network measured a row, and by which metrics: rows with different features do not compare.
    `intervals` are the 95 % intervals of our own values.
    """
    theirs = [{column: published.value("table1", name, quantity) for column, quantity in TABLE1.items()}
              | {"method": name, "features": "Inception (rFID, FID, IS)", "source": published.source("table1", name, "gfid")}
              for name in published.rows("table1")]
    return pd.DataFrame([*theirs, *_own_rows(results, sheet)], columns=list(TABLE1))


def table6(results: Path, sheet: Sheet, published: Published) -> pd.DataFrame:
    """Table 6. The guidance of each tokenizer checkpoint that is trained here, one row a seed, with the distance by which the
    search chose it, and the paper's. Blank: the parameters set the guidance, nothing was searched."""
    found = []
    for _, trial, label in sheet.feeding("table6"):
        if trial.tokenizer:
            continue
        chosen, record = guidance(results, sheet, trial, label)
        sampling = trial.params.sampling
        row = {"checkpoint": label, "schedule": chosen.schedule, "start_ratio": chosen.start, "max_scale": chosen.scale,
               "top_k": record["top_k"] if record else sampling.top_k, "top_p": record["top_p"] if record else sampling.top_p,
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
    entries = {}
    for name, trial, label in sheet.feeding("table1"):
        entries.setdefault(trial.id, []).append((name, trial, label))
    if not entries:
        raise ConfigError(f"experiments: no row feeds table1 for {sheet.run}; name table1 among the feeds of one")
    found, every = [], []
    for own in entries.values():
        name, first, _ = own[0]
        evaluations = [measured(results, sheet, trial, label) for _, trial, label in own if trial is first]
        seeds = len({trial.seed for _, trial, _ in own})
        found.append((name, first, lowest(evaluations), seeds))
        every += evaluations
    require_alike(every)
    return [_own_row(sheet.run, *own) for own in found]


def _own_row(run: str, name: str, trial: Trial, chosen: Evaluation, seeds: int) -> dict[str, str]:
    reconstruction = chosen.reconstruction
    codebook = reconstruction["metrics"]["codebook"]
    tokens = sum(level["tokens"] for level in codebook["levels"]) if codebook else trial.params.tokenizer.latents
    notes = [f"reconstruction of {reconstruction['n']} images"]
    if seeds > 1:
        notes.append(f"seed {trial.seed}, the first of {seeds}")
    if trial.tokenizer:
        notes.append(f"finished weights: {', '.join(filter(None, (trial.tokenizer, trial.generator)))}")
    row = {
        "method": f"ResTok, {name or ('this run' if trial.name == run else trial.id)} ({run}, {chosen.label})",
        "family": "query",
        "tokenizer_type": "VQ",
        "tokenizer_params": count(chosen.tokenizer["parameters"]),
        "tokens": str(tokens),
        "reconstruction_distance": number(reconstruction["metrics"][chosen.reconstruction_distance]),
        "features": chosen.features,
        "n": str(reconstruction["n"]),
        "source": sources(chosen.records),
    }
    sure = {chosen.reconstruction_distance: reconstruction["intervals"][chosen.reconstruction_distance]}
    if chosen.generation:
        generation, steps = chosen.generation, chosen.generator["sampling_steps"]
        shown = {"generation_distance": chosen.distance, "score": chosen.score, "precision": "precision", "recall": "recall"}
        row |= {column: number(generation["metrics"][metric]) for column, metric in shown.items()}
        row |= {"generator_type": "AR" if steps == tokens else "HAR", "steps": str(steps), "n": str(generation["n"]),
                "generator_params": count(chosen.generator["parameters"])}
        sure |= {metric: generation["intervals"][metric] for metric in shown.values()}
        notes = [*_as_adm(generation["metrics"]), *notes, f"against {generation['reference']['name']}"]
    return dict.fromkeys(TABLE1, "") | row | {
        "intervals": "; ".join(f"{metric} {spread(interval)}" for metric, interval in sure.items() if interval),
        "notes": "; ".join(notes)}


def _as_adm(metrics: dict[str, float | None]) -> list[str]:
    """Precision and recall as the published ones are computed, where they were measured so."""
    found = [f"{name} {number(metrics[called])}" for name in ("precision", "recall")
             if (called := f"{name} adm-fp16") in metrics and metrics[called] is not None]
    return [f"as ADM rounds distances, {', '.join(found)}"] if found else []
