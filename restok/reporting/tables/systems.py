"""Tables 1, 6 and 10: whole systems, and the guidance behind them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from restok.config.load import ConfigError
from restok.experiments.trials import MAIN
from restok.reporting.cells import Measure, count, frame, number, span
from restok.reporting.inputs import Inputs
from restok.reporting.measured import UNGUIDED, Row, chosen_guidance, lowest, rows
from restok.reporting.run import chosen_candidate, require_metric
from restok.reporting.tables.orders import Claim, claims, explained, joined
from restok.reporting.tables.table import Rows, Table, column, how, one, side_by_side, with_paper
from restok.stages.search import among, cost, drawn

TABLE1 = {      # its columns: the published quantity in each, and its title, if a reader sees it
    "method": ("", "method"), "family": ("family", "tokens are"), "tokenizer_type": ("tokenizer_type", "tokenizer"),
    "tokenizer_params": ("tokenizer_params", "params"), "tokens": ("tokens", "tokens"),
    "reconstruction_distance": ("rfid", "rFID ↓"), "generator_type": ("generator_type", "generator"),
    "generator_params": ("generator_params", "params"), "steps": ("steps", "steps"),
    "generation_distance": ("gfid", "gFID ↓"),
    "unguided_distance": ("gfid_unguided", "gFID without guidance ↓"), "score": ("is", "IS ↑"),
    "precision": ("precision", "precision ↑"), "recall": ("recall", "recall ↑"), "intervals": ("", ""), "features": ("", ""),
    "n": ("", ""), "notes": ("notes", ""), "source": ("", "")}
MEASURED = ("rfid", "gfid", "gfid_unguided", "is", "precision", "recall")      # of its quantities, of our own systems
GUIDANCE = {"schedule": "schedule", "start_ratio": "start ratio", "max_scale": "largest scale", "top_k": "top-k",
                   "top_p": "top-p"}


def table1(inputs: Inputs, item: str) -> Table:
    """Table 1. The published systems, as printed, and below them each row of the sheet that feeds it, at its best checkpoint,
    each number the mean over its seeds. Cells are text; unknown is blank.

    `features` says which network measured a row, and by which metrics: rows with different features do not compare.
    `intervals` are the 95 % intervals of our own values, of one seed; of several, `notes` has their standard deviations.
    """
    published = inputs.published
    theirs = [{column: published.value(item, name, quantity) for column, (quantity, _) in TABLE1.items()}
              | {"method": name, "features": "Inception (rFID, FID, IS)", "source": published.source(item, name, "gfid")}
              for name in published.rows(item)]
    by_id = groupby(rows(inputs.tree, item), key=lambda row: row.trials[0].id)
    ours = [_own_row(inputs.tree.sheet.run, lowest(list(of_one))) for _, of_one in by_id]
    notes = [f"{row['method']}: in the place of rFID, FID and IS, {row['features']}; {row['n']} samples; {row['notes']}. "
             + (row["intervals"] and f"95 % intervals: {row['intervals']}.") for row in ours]
    if any("rFID" not in row["features"] for row in ours):
        notes.append("Rows measured by other features do not compare.")
    notes += [f"{row['method']}: {row['notes']}." for row in theirs if row["notes"]]
    cells = [*theirs, *ours]
    titles = [(title, column(cells, name)) for name, (_, title) in TABLE1.items() if title]
    return Table(frame(cells), titles, notes, tuple(range(len(theirs), len(cells))))


def table6(inputs: Inputs, item: str) -> Table:
    """Table 6. The guidance of each tokenizer checkpoint that is trained here, one row a seed, with the distance by which the
    search chose it, and the paper's. `guidance` is 'searched', or 'set' by the parameters and its distance blank."""
    cells = []
    for _, trial, label in inputs.tree.sheet.feeding(item):
        if trial.tokenizer:
            continue
        chosen, record = chosen_guidance(inputs.tree, trial, label)
        sampling = record or trial.params.sampling.model_dump()
        row = {"checkpoint": label, "schedule": chosen.schedule, "start_ratio": chosen.start, "max_scale": chosen.scale,
               "top_k": sampling["top_k"], "top_p": sampling["top_p"], "guidance": "searched" if record else "set",
               **inputs.published.beside(item, label, GUIDANCE), "metric": "", "distance": None, "interval": "", "n": "",
               "candidates": "", "lowest_of": "", "search_samples": "", "seed": trial.seed,
               "source": f"params/{inputs.tree.sheet.run}.yaml"}
        if record:
            candidate, metric = chosen_candidate(record), record["metric"]
            row |= {"metric": metric, "distance": require_metric(candidate, metric),
                    "interval": span(candidate["intervals"][metric]), "n": candidate["n"],
                    "candidates": len(record["candidates"]), "lowest_of": among(record), "search_samples": drawn(record),
                    "source": record.path.as_posix()}
        cells.append(row)
    if not cells:
        raise ConfigError(f"experiments: no row feeds {item} for {inputs.tree.sheet.run}; let one feed it")
    return Table(frame(cells), *_table6_view(cells))


def _table6_view(cells: Rows) -> tuple[list, list[str]]:
    metric, notes = one(column(cells, "metric")), []
    unguided = {"start_ratio": "", "max_scale": ""}
    shown = [row if row["max_scale"] != 1 else row | unguided | {"schedule": _none(row)} for row in cells]
    names = {"checkpoint": "checkpoint"} | ({"seed": "seed"} if len(set(column(cells, "seed"))) > 1 else {}) | GUIDANCE
    columns = [(title, column(shown, name)) for name, title in names.items()]
    if metric:
        columns += [(f"{metric} ↓", [number(row["distance"]) for row in cells]), ("95 % interval", column(cells, "interval"))]
        notes.append(f"{metric}, the lowest of {one(column(cells, 'lowest_of'))}.")
        costs = dict.fromkeys(filter(None, column(cells, "search_samples")))
        notes += [f"The search for each: {cost(samples)}." for samples in costs]
    columns.append(("the paper", [", ".join(f"{title} {cell}" for name, title in GUIDANCE.items()
                                            if (cell := row[f"{name}_paper"])) for row in cells]))
    if fixed := [row["checkpoint"] for row in cells if row["guidance"] == "set"]:
        notes.append(f"Set by the parameters, not searched: {one(fixed)}.")
    return columns, notes


def _none(row: Mapping) -> str:
    """What stands in the place of a guidance of scale 1."""
    return "none" if row["guidance"] == "set" else f"none ({row['guidance']})"


def table10(inputs: Inputs, item: str) -> Table:
    """Table 10. HAR and vanilla autoregression on one tokenizer: the guidance used, steps, and gfid, gfid_unguided, is,
    precision and recall, each with `_sd` or `_low` and `_high` as in the ablations, and `_paper`. Raises ConfigError for a row
    without generator."""
    measured = rows(inputs.tree, item)
    for row in measured:
        if row.first.generator is None:
            raise ConfigError(f"experiments: row {row.trials[0].id!r} feeds {item} without a generator; name its folder")
    said = claims(inputs, item, measured)
    cells = [_generator_row(inputs, item, row, joined(said, row.key)) for row in measured]
    return Table(frame(cells), *_table10_view(cells, said))


def _generator_row(inputs: Inputs, item: str, row: Row, agrees: str) -> dict:
    label, published = row.first.label, inputs.published
    guided = [chosen_guidance(inputs.tree, trial, label) for trial in row.trials]
    cells = {
        "setting": row.key,
        "checkpoint": label,
        "generator_params": count(row.first.generator["parameters"]),
        "steps": row.first.generator["sampling_steps"],
        "steps_paper": published.value(item, row.key, "steps"),
        "schedule": _each(chosen.schedule for chosen, _ in guided),
        "start_ratio": _each(f"{chosen.start:g}" for chosen, _ in guided),
        "max_scale": _each(f"{chosen.scale:g}" for chosen, _ in guided),
        "guidance": _each("searched" if record else "set" for _, record in guided),
        **published.beside(item, row.key, ("schedule", "max_scale")),
    }
    for quantity in ("gfid", "gfid_unguided", "is", "precision", "recall"):
        cells |= {quantity: row.measure(quantity)} | published.beside(item, row.key, [quantity])
    return cells | {"agrees": agrees, "score_metric": row.first.metric("is")} | row.about


def _table10_view(cells: Rows, said: Sequence[Claim]) -> tuple[list, list[str]]:
    guided = [_none(row) if row["max_scale"] == "1" else
              f"{row['schedule']}, at most {row['max_scale']}" + f", from {row['start_ratio']} on" * (row["schedule"] == "step")
              + f" ({row['guidance']})" for row in cells]
    columns = [("generator", column(cells, "setting")),
               *side_by_side("steps", column(cells, "steps"), "steps", column(cells, "steps_paper")), ("guidance", guided),
               *with_paper(cells, "gfid", one(column(cells, "gfid_metric")) + " ↓"),
               *with_paper(cells, "gfid_unguided", one(column(cells, "gfid_metric")) + " without guidance ↓"),
               *with_paper(cells, "is", one(column(cells, "score_metric")) + " ↑")]
    for name in ("precision", "recall"):                # their intervals would make the table too wide
        ours = [Measure(*row[name][:2]) for row in cells]
        columns += side_by_side(f"{name} ↑", ours, name, column(cells, f"{name}_paper"))
    columns.append(("the paper's order", column(cells, "agrees")))
    return columns, [f"Checkpoint {one(column(cells, 'checkpoint'))} of the tokenizer.", *how(cells), *explained(said)]


def _each(texts: Iterable[str]) -> str:
    """One text where the seeds agree."""
    return "; ".join(dict.fromkeys(texts))


def _own_row(run: str, row: Row) -> dict[str, str]:
    trial, first = row.trials[0], row.first
    tokens = row.params.tokenizer.latents
    measures = {quantity: row.measure(quantity) for quantity in MEASURED}
    cells = {
        "method": f"ResTok, {row.name or ('this run' if trial.name == MAIN else trial.id)} ({run}, {first.label})",
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
        cells |= {"generator_type": "AR" if steps == tokens else "HAR", "steps": str(steps),
                  "generator_params": count(first.generator["parameters"])}
    cells |= {name: number(measures[quantity].value) for name, (quantity, _) in TABLE1.items() if quantity in measures}
    named = {first.metric(quantity) + " without guidance" * quantity.endswith(UNGUIDED): measure
             for quantity, measure in measures.items()}
    intervals = [f"{metric} {span(value[2:])}" for metric, value in named.items() if value.low is not None]
    deviations = [f"{metric} {value.sd:.2g}" for metric, value in named.items() if value.sd is not None]
    return dict.fromkeys(TABLE1, "") | cells | {"intervals": "; ".join(intervals), "notes": "; ".join(_notes(row, deviations))}


def _notes(row: Row, deviations: Sequence[str]) -> Iterator[str]:
    """What Table 1 says of a row of ours; first, precision and recall as the published ones are computed, if measured so."""
    trial, about = row.trials[0], row.about
    as_adm = [f"{name} adm-fp16" for name in ("precision", "recall")]
    if row.first.generation and (texts := [
            f"{name.split()[0]} {number(value)}" for name in as_adm
            if name in row.first.generation["metrics"] and (value := row.measure(name).value) is not None]):
        yield f"as ADM rounds distances, {', '.join(texts)}"
    if about["n_seeds"] > 1:
        yield f"mean of {about['n_seeds']} seeds ({about['seeds']}), whose standard deviations are {', '.join(deviations)}"
    yield f"reconstruction of {about['reconstruction_n']} images against {about['reconstruction_reference']}"
    if trial.tokenizer:
        yield f"finished weights: {', '.join(filter(None, (trial.tokenizer, trial.generator)))}"
    if about["generation_reference"]:
        yield f"samples against {about['generation_reference']}"
