"""What the experiments measured: the rows of a table or figure, each with its seeds, from the folders that the sheet names."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev

from restok.config import Generator, Guidance, Params, Tokenizer
from restok.config.load import ConfigError, parse
from restok.experiments import ITEMS, Tree, Trial
from restok.metrics.results import ComparisonError
from restok.reporting.cells import Measure
from restok.reporting.run import Checkpoint, Record, ReportError, by_protocol, checkpoint, comparable, read

Interval = list[float]           # low, high, as JSON has them


@dataclass(frozen=True)
class Row:
    """One row of the sheet at one checkpoint: its trials and what was measured of each, one a seed."""

    name: str                                # in the table or figure; may be blank
    several: bool                            # whether it is there at other checkpoints, too
    trials: tuple[Trial, ...]
    measured: tuple[Checkpoint, ...]

    @property
    def first(self) -> Checkpoint:
        return self.measured[0]

    @property
    def key(self) -> str:
        """What orders and published numbers call the row."""
        return called(self.name, self.first.label, self.several)

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

    def records(self, quantity: str) -> list[Record]:
        """What a quantity was read from, by seed; without generator, nothing for those of generation."""
        return [record for e in self.measured if (record := record_of(e, quantity)) is not None]

    def values(self, quantity: str) -> list[float] | None:
        """A quantity by seed; None where a seed lacks it."""
        values = [value_of(e, quantity)[0] for e in self.measured]
        return None if None in values else values

    def measure(self, quantity: str) -> Measure:
        """The mean; of several seeds with their standard deviation (n - 1), of one with the 95 % interval of its images."""
        values = self.values(quantity)
        if values is None:
            return Measure(None)
        if len(values) > 1:
            return Measure(mean(values), stdev(values))
        low, high = value_of(self.first, quantity)[1] or (None, None)
        return Measure(values[0], None, low, high)

    @property
    def about(self) -> dict[str, str | int]:
        """How the row was measured, as every table carries it at its end."""
        e = self.first
        return {"rfid_metric": e.reconstruction_distance, "gfid_metric": e.distance, "reconstruction_n": e.reconstruction["n"],
                "generation_n": e.generation["n"] if e.generation else "", "features": e.features,
                "reconstruction_reference": reference(e.reconstruction),
                "generation_reference": reference(e.generation) if e.generation else "",
                "seeds": " ".join(str(trial.seed) for trial in self.trials), "n_seeds": len(self.trials),
                "changes": "; ".join(self.trials[0].own),
                "source": sources(record for e in self.measured for record in e.records)}


def record_of(e: Checkpoint, quantity: str) -> Record | None:
    """The result that holds a quantity."""
    of_reconstruction = quantity in ("rfid", "entropy", "usage") or quantity.startswith("reconstruction ")
    return e.reconstruction if of_reconstruction else e.generation


def value_of(e: Checkpoint, quantity: str) -> tuple[float | None, Interval | None]:
    """A quantity in the paper's terms (rfid, entropy, usage, gfid, is, precision, recall) and its interval; None: unknown."""
    record = record_of(e, quantity)
    metric = {"rfid": e.reconstruction_distance, "gfid": e.distance, "is": e.score, "entropy": "codebook",
              "usage": "codebook"}.get(quantity, quantity.removeprefix("reconstruction "))
    if record is None:
        return None, None
    value, interval = record["metrics"][metric], record["intervals"][metric]
    if metric == "codebook" and value is not None:
        value, interval = value[quantity], interval[quantity]
    return value, interval


def reference(record: Record) -> str:
    """What images were held against, 'training split (c70c6da6a93d)'."""
    return f"{record['reference']['name']} ({record['reference']['digest'][:12]})"


def called(name: str, label: str, several: bool) -> str:
    """A row's name, with its checkpoint where it is there at several; without a name, its checkpoint."""
    return f"{name} at {label}" if name and several else name or label


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
    counts = Counter((id, name) for id, name, _ in grouped)
    several = {group: counts[group[:2]] > 1 for group in grouped}
    keys = {}
    for group in grouped if ITEMS[item].rows == "named" else ():
        id, key = group[0], called(*group[1:], several[group])
        if keys.setdefault(key, id) != id:
            raise ConfigError(f"experiments: rows {keys[key]!r} and {id!r} both feed {item} as {key!r}; rename one")
    every = [Row(group[1], several[group], tuple(trials.values()),
                 tuple(measured(tree, trial, group[2]) for trial in trials.values())) for group, trials in grouped.items()]
    require_alike([e for row in every for e in row.measured])
    return every


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


def require_alike(measured: Sequence[Checkpoint]) -> None:
    """Raises ComparisonError unless all were measured alike, on as many images: a distance depends on their number."""
    comparable(measured)
    for records in by_protocol(measured):
        for record in records:
            if record["n"] != records[0]["n"]:
                raise ComparisonError(f"{records[0].path} and {record.path} do not compare: n differ, {records[0]['n']} and "
                                      f"{record['n']}; measure both on as many images")


def measured(tree: Tree, trial: Trial, label: str) -> Checkpoint:
    """One trial at one checkpoint."""
    step = None if trial.tokenizer else trial.params.tokenizer_training.checkpoints[label]
    stages = ("tokenizer", "generator", "reconstruction", "generation")
    tokenizer, generator, reconstruction, generation = (tree.path(stage, trial, label) for stage in stages)
    generator = None if trial.tokenizer and not trial.generator else generator
    return checkpoint(label, step, tokenizer, generator, reconstruction, generation)


def chosen_guidance(tree: Tree, trial: Trial, label: str) -> tuple[Guidance, Record | None]:
    """What guided a trial's samples: the parameters' own setting, or the choice of the search, with its record."""
    if trial.params.sampling.guidance is not None:
        return trial.params.sampling.guidance, None
    path = tree.path("guidance", trial, label)
    record = read(path)
    return parse(Guidance, record["chosen"], str(path)), record


def sources(records: Iterable[Record]) -> str:
    """Their files, each once."""
    return "; ".join(dict.fromkeys(record.path.as_posix() for record in records))
