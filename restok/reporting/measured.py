"""What the experiments measured: the rows of a table or figure, each with its seeds, from the folders that the sheet names."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev

from restok.config import Generator, Guidance, Params, Tokenizer
from restok.config.load import ConfigError, parse
from restok.experiments import ITEMS, Tree, Trial
from restok.experiments.records import Trained, TrainedGenerator
from restok.experiments.results import Result
from restok.experiments.searched import Search
from restok.metrics.results import ComparisonError, require_comparable
from restok.reporting.cells import Measure
from restok.reporting.run import Record, ReportError, fault, read, remedy, require_metric

Interval = list[float]           # low, high, as JSON has them
ROLES = {"rfid": "distance", "gfid": "distance", "is": "score"}     # of the metrics, by the paper's quantity
UNGUIDED = "_unguided"           # ends the name of a quantity of samples without guidance: gfid_unguided


@dataclass(frozen=True)
class Checkpoint:
    """What was measured with one checkpoint of the tokenizer. Of finished weights `step` is unknown, None, and a tokenizer may
    come without a generator."""

    label: str
    step: int | None
    reconstruction: Record
    generation: Record | None
    tokenizer: Record            # what the training of each wrote
    generator: Record | None
    unguided: Record | None = None          # of samples without guidance, where it is shown

    @property
    def records(self) -> list[Record]:
        """The results that there are."""
        return [record for record in (self.reconstruction, self.generation, self.unguided) if record is not None]

    def record(self, quantity: str) -> Record | None:
        """The result that holds a quantity."""
        if quantity.endswith(UNGUIDED):
            return self.unguided
        of_reconstruction = quantity in ("rfid", "entropy", "usage") or quantity.startswith("reconstruction ")
        return self.reconstruction if of_reconstruction else self.generation

    def metric(self, quantity: str) -> str:
        """What measured a quantity, as the results call it: FID or FD-digits for gfid; blank where nothing was generated."""
        record, quantity = self.record(quantity), quantity.removesuffix(UNGUIDED)
        if quantity in ROLES:
            return record["names"][ROLES[quantity]] if record else ""
        return "codebook" if quantity in ("entropy", "usage") else quantity.removeprefix("reconstruction ")

    def value(self, quantity: str) -> tuple[float | None, Interval | None]:
        """A quantity, as the paper names it (rfid, entropy, usage, gfid, is, recall), and its interval; None: unknown."""
        record, metric = self.record(quantity), self.metric(quantity)
        if record is None:
            return None, None
        value, interval = record["metrics"][metric], record["intervals"][metric]
        return (value[quantity], interval[quantity]) if metric == "codebook" and value is not None else (value, interval)

    @property
    def features(self) -> str:
        """The network behind the numbers: 'digits classifier (rFD-digits, FD-digits, IS-digits)'."""
        names = filter(None, map(self.metric, ("rfid", "gfid", "is")))
        return f"{self.reconstruction['features']['name']} ({', '.join(names)})"


@dataclass(frozen=True)
class Row:
    """One row of the sheet at one checkpoint: its trials and what was measured of each, one a seed."""

    name: str                                # in the table or figure; may be blank
    key: str                                 # what orders and published numbers call it: with its checkpoint, if at several
    trials: tuple[Trial, ...]
    measured: tuple[Checkpoint, ...]

    @property
    def first(self) -> Checkpoint:
        return self.measured[0]

    @cached_property
    def params(self) -> Params:
        """The settings of its first seed. Of finished weights, tokenizer and generator are those of the config.json beside the
        weights, whatever the sheet says; how they were trained is unknown. Raises ReportError, ConfigError."""
        trial, finished = self.trials[0], {}
        for name, model, weights in (("tokenizer", Tokenizer, trial.tokenizer), ("generator", Generator, trial.generator)):
            if weights:
                path = Path(weights) / "config.json"
                finished[name] = parse(model, read(path), str(path))
        return trial.params.model_copy(update=finished)

    def values(self, quantity: str) -> list[float] | None:
        """A quantity by seed; None where a seed lacks it."""
        values = [e.value(quantity)[0] for e in self.measured]
        return None if None in values else values

    def measure(self, quantity: str) -> Measure:
        """The mean; of several seeds with their standard deviation (n - 1), of one with the 95 % interval of its images."""
        values = self.values(quantity)
        if values is None:
            return Measure(None)
        if len(values) > 1:
            return Measure(mean(values), stdev(values))
        low, high = self.first.value(quantity)[1] or (None, None)
        return Measure(values[0], None, low, high)

    @property
    def about(self) -> dict[str, str | int]:
        """How the row was measured, as every table carries it at its end."""
        e = self.first
        return {"rfid_metric": e.metric("rfid"), "gfid_metric": e.metric("gfid"), "reconstruction_n": e.reconstruction["n"],
                "generation_n": e.generation["n"] if e.generation else "", "features": e.features,
                "reconstruction_reference": _reference(e.reconstruction), "generation_reference": _reference(e.generation),
                "seeds": " ".join(str(trial.seed) for trial in self.trials), "n_seeds": len(self.trials),
                "changes": "; ".join(self.trials[0].own), "source": files_behind(self)}


def _reference(record: Record | None) -> str:
    """What images were held against, 'training split (c70c6da6a93d)'; blank where there are none."""
    return f"{record['reference']['name']} ({record['reference']['digest'][:12]})" if record else ""


def files_behind(*rows: Row) -> str:
    """The files behind rows, each once."""
    return "; ".join(dict.fromkeys(record.path.as_posix() for row in rows for e in row.measured for record in e.records))


def rows(tree: Tree, item: str) -> list[Row]:
    """What feeds a table or figure, in the order of the sheet; a row of the sheet with several checkpoints becomes several.

    Raises ReportError where a result is missing, ComparisonError where two were not measured alike, ConfigError where no row
    feeds the item, or two have one name where the item's rows are named.
    """
    grouped = {}
    for name, trial, label in tree.sheet.feeding(item):
        grouped.setdefault((trial.id, name, label), {})[trial.name] = trial
    if not grouped:
        raise ConfigError(f"experiments: no row feeds {item} for {tree.sheet.run}; name {item} among the feeds of one")
    counts, ids = Counter((id, name) for id, name, _ in grouped), {}
    keys = {(id, name, label): f"{name} at {label}" if name and counts[id, name] > 1 else name or label
            for id, name, label in grouped}
    for (id, _, _), key in keys.items() if ITEMS[item].rows == "named" else ():
        if ids.setdefault(key, id) != id:
            raise ConfigError(f"experiments: rows {ids[key]!r} and {id!r} both feed {item} as {key!r}; rename one")
    every = [Row(group[1], keys[group], tuple(trials.values()),
                 tuple(measured_at(tree, trial, group[2], "unguided" in ITEMS[item].reads)
                       for trial in trials.values())) for group, trials in grouped.items()]
    require_alike([e for row in every for e in row.measured])
    return every


def measured_at(tree: Tree, trial: Trial, label: str, unguided: bool = False) -> Checkpoint:
    """One trial at one checkpoint, with its samples without guidance where they are asked for; of a tokenizer alone, the
    reconstruction. Raises ReportError where the files disagree with each other or with the checkpoint's step, or hold no
    distance."""
    step = None if trial.tokenizer else trial.params.tokenizer_training.checkpoints[label]
    stages = ("tokenizer", "generator", "reconstruction", "generation")
    tokenizer, generator, reconstruction, generation = (tree.path(stage, trial, label) for stage in stages)
    alone = trial.tokenizer and not trial.generator
    e = Checkpoint(label, step, read(reconstruction, Result), None if alone else read(generation, Result),
                   read(tokenizer / "metrics.json", Trained),
                   None if alone else read(generator / "metrics.json", TrainedGenerator),
                   read(tree.path("unguided", trial, label), Result) if unguided and not alone else None)
    for record in e.records:
        require_metric(record, record["names"]["distance"])
    if len({record["features"]["sha256"] for record in e.records}) > 1:
        paths = " and ".join(str(record.path) for record in e.records)
        raise ReportError(f"{paths}: not measured by the same features; remove all; {remedy(generation)}, and the others "
                          "likewise")
    if step is not None and e.tokenizer["step"] != step:
        raise fault(e.tokenizer.path, f"step {e.tokenizer['step']}, but the parameters put {label} at {step}")
    return e


def require_alike(measured: Sequence[Checkpoint]) -> None:
    """Raises ComparisonError unless all were measured alike, on as many images: a distance depends on their number."""
    reconstructions = [e.reconstruction for e in measured]
    generations = [record for e in measured for record in (e.generation, e.unguided) if record]
    for records in filter(None, (reconstructions, generations)):
        require_comparable([(record.path, record) for record in records])
        for record in records:
            if record["n"] != records[0]["n"]:
                raise ComparisonError(f"{records[0].path} and {record.path} do not compare: n differ, {records[0]['n']} and "
                                      f"{record['n']}; measure both on as many images")


def checkpoints(tree: Tree, item: str) -> list[Row]:
    """What feeds an item that shows one row of the sheet, by checkpoint. Raises ReportError where more than one feeds it, and
    what `rows` raises."""
    every = rows(tree, item)
    ids = dict.fromkeys(row.trials[0].id for row in every)
    if len(ids) > 1:
        raise ReportError(f"experiments: rows {', '.join(ids)} feed {item}, which shows one; take it out of the others")
    return every


def lowest(rows: Sequence[Row]) -> Row:
    """The row with the lowest generation distance, the mean over its seeds, as the paper chooses its own checkpoint."""
    return min(rows, key=lambda row: mean(row.values("gfid") or [math.inf]))


def best(tree: Tree, item: str) -> Row:
    """The best checkpoint of the row of the sheet that an item shows."""
    return lowest(checkpoints(tree, item))


def chosen_guidance(tree: Tree, trial: Trial, label: str) -> tuple[Guidance, Record | None]:
    """What guided a trial's samples: the parameters' own setting, or the choice of the search, with its record."""
    if trial.params.sampling.guidance is not None:
        return trial.params.sampling.guidance, None
    path = tree.path("guidance", trial, label)
    record = read(path, Search)
    return Guidance(**record["chosen"]), record
