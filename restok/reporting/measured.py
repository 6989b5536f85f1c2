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
from restok.experiments import Sheet, Trial
from restok.metrics.results import ComparisonError
from restok.reporting.run import Evaluation, Record, ReportError, by_protocol, comparable, evaluation, read
from restok.reporting.run import guidance as read_guidance

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One row of the sheet at one checkpoint: its trials and what was measured of each, one a seed."""

    name: str                                # in the table or figure; may be blank
    several: bool                            # whether it is there at other checkpoints, too
    trials: tuple[Trial, ...]
    measured: tuple[Evaluation, ...]

    @property
    def first(self) -> Evaluation:
        return self.measured[0]

    @property
    def key(self) -> str:
        """What orders and published numbers call the row."""
        return called(self.name, self.first.label, self.several)

    @cached_property
    def params(self) -> Params:
        """The settings of its first seed. Of finished weights, tokenizer and generator are those of the config.json beside the
        weights, whatever the sheet says; how they were trained is unknown. Raises ReportError, ConfigError."""
        trial, found = self.trials[0], {}
        for name, model, weights in (("tokenizer", Tokenizer, trial.tokenizer), ("generator", Generator, trial.generator)):
            if weights:
                path = Path(weights) / "config.json"
                found[name] = parse(model, read(path), str(path))
        return trial.params.model_copy(update=found)

    def records(self, quantity: str) -> list[Record]:
        """What a quantity was read from, by seed; without generator, nothing for those of generation."""
        return [record for e in self.measured if (record := record_of(e, quantity)) is not None]

    def values(self, quantity: str) -> list[float] | None:
        """A quantity by seed; None where a seed lacks it."""
        found = [value_of(e, quantity)[0] for e in self.measured]
        return None if None in found else found

    def summary(self, quantity: str, scale: float = 1) -> dict[str, float | None]:
        """The mean; of several seeds their standard deviation (n - 1), of one the 95 % interval of its images; else None."""
        values, one = self.values(quantity), len(self.measured) == 1
        low, high = value_of(self.first, quantity)[1] or (None, None) if one and values else (None, None)
        found = {"": mean(values) if values else None, "_sd": stdev(values) if values and not one else None,
                 "_low": low, "_high": high}
        return {f"{quantity}{end}": number if number is None else scale * number for end, number in found.items()}

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


def record_of(e: Evaluation, quantity: str) -> Record | None:
    """The result that holds a quantity."""
    return e.reconstruction if quantity in ("rfid", "entropy", "usage") else e.generation


def value_of(e: Evaluation, quantity: str) -> tuple[float | None, Interval | None]:
    """A quantity in the paper's terms (rfid, entropy, usage, gfid, is, precision, recall) and its interval; None: unknown."""
    record = record_of(e, quantity)
    metric = {"rfid": e.reconstruction_distance, "gfid": e.distance, "is": e.score, "entropy": "codebook",
              "usage": "codebook"}.get(quantity, quantity)
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


def rows(results: Path, sheet: Sheet, item: str, unnamed: bool = False) -> list[Row]:
    """What feeds a table or figure, in the order of the sheet; a row of the sheet with several checkpoints becomes several.

    Raises ReportError where a result is missing, ComparisonError where two were not measured alike, ConfigError where no row
    feeds the item, or two have one key. `unnamed`: keys may be equal, because the item tells its rows apart by their ids.
    """
    grouped = {}
    for name, trial, label in sheet.feeding(item):
        grouped.setdefault((trial.id, name, label), {})[trial.name] = trial
    if not grouped:
        raise ConfigError(f"experiments: no row feeds {item} for {sheet.run}; name {item} among the feeds of one")
    counts = Counter((id, name) for id, name, _ in grouped)
    several = {group: counts[group[:2]] > 1 for group in grouped}
    keys = {}
    for group in () if unnamed else grouped:
        id, key = group[0], called(*group[1:], several[group])
        if keys.setdefault(key, id) != id:
            raise ConfigError(f"experiments: rows {keys[key]!r} and {id!r} both feed {item} as {key!r}; rename one")
    found = [Row(group[1], several[group], tuple(trials.values()),
                 tuple(measured(results, sheet, trial, group[2]) for trial in trials.values()))
             for group, trials in grouped.items()]
    require_alike([e for row in found for e in row.measured])
    return found


def checkpoints(results: Path, sheet: Sheet, item: str) -> list[Row]:
    """What feeds an item that shows one row of the sheet, by checkpoint. Raises ReportError where more than one feeds it, and
    what `rows` raises."""
    found = rows(results, sheet, item, unnamed=True)
    ids = dict.fromkeys(row.trials[0].id for row in found)
    if len(ids) > 1:
        raise ReportError(f"experiments: rows {', '.join(ids)} feed {item}, which shows one; take it out of the others")
    return found


def lowest(found: Sequence[Row]) -> Row:
    """The row with the lowest generation distance, the mean over its seeds, as the paper chooses its own checkpoint."""
    return min(found, key=lambda row: mean(row.values("gfid") or [math.inf]))


def best(results: Path, sheet: Sheet, item: str) -> Row:
    """The best checkpoint of the row of the sheet that an item shows."""
    return lowest(checkpoints(results, sheet, item))


def require_alike(found: Sequence[Evaluation]) -> None:
    """Raises ComparisonError unless all were measured alike, on as many images: a distance depends on their number."""
    comparable(found)
    for records in by_protocol(found):
        for record in records:
            if record["n"] != records[0]["n"]:
                raise ComparisonError(f"{records[0].path} and {record.path} do not compare: n differ, {records[0]['n']} and "
                                      f"{record['n']}; measure both on as many images")


def measured(results: Path, sheet: Sheet, trial: Trial, label: str) -> Evaluation:
    """One trial at one checkpoint, each stage from the folder that holds it."""
    def stage(name: str) -> Path:
        return folder(results, sheet, name, trial)

    return evaluation(
        label,
        None if trial.tokenizer else trial.params.tokenizer_training.checkpoints[label],
        Path(trial.tokenizer) if trial.tokenizer else stage("tokenizer") / "tokenizer" / label,
        Path(trial.generator) if trial.generator else None if trial.tokenizer else stage("generator") / "generator" / label,
        stage("reconstruction") / "evaluation" / label / "reconstruction.json",
        stage("generation") / "evaluation" / label / "generation.json")


def guidance(results: Path, sheet: Sheet, trial: Trial, label: str) -> tuple[Guidance, Record | None]:
    """What guided a trial's samples, and the record of the search that chose it, if one did."""
    return read_guidance(folder(results, sheet, "guidance", trial) / "guidance" / f"{label}.json", trial.params)


def folder(results: Path, sheet: Sheet, stage: str, trial: Trial) -> Path:
    """The folder with a trial's result of a stage: its own, or that of the trial with which it shares the stage."""
    return Path(results) / Path(sheet.home(stage, trial).name).relative_to(sheet.run)


def sources(records: Iterable[Record]) -> str:
    """Their files, each once."""
    return "; ".join(dict.fromkeys(record.path.as_posix() for record in records))
