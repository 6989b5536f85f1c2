"""What the experiments measured: the rows of a table or figure, each with its seeds, from the folders that the sheet names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from restok.config import Guidance
from restok.experiments import Sheet, Trial
from restok.metrics.results import ComparisonError
from restok.params import ConfigError
from restok.reporting.run import Evaluation, Record, by_protocol, comparable, evaluation
from restok.reporting.run import guidance as read_guidance

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One row of the sheet at one checkpoint: its trials and what was measured of each, one a seed."""

    name: str                                # in the table or figure; may be blank
    trials: tuple[Trial, ...]
    measured: tuple[Evaluation, ...]

    @property
    def first(self) -> Evaluation:
        return self.measured[0]

    @property
    def key(self) -> str:
        """What orders and published numbers call the row: its name or, without one, its checkpoint."""
        return self.name or self.first.label

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
                "reference": e.records[-1]["reference"]["name"],
                "seeds": " ".join(str(trial.seed) for trial in self.trials), "n_seeds": len(self.trials),
                "changes": "; ".join(self.trials[0].own),
                "source": sources(record for e in self.measured for record in e.records)}


def value_of(e: Evaluation, quantity: str) -> tuple[float | None, Interval | None]:
    """A quantity in the paper's terms (rfid, entropy, usage, gfid, is, precision, recall) and its interval; None: unknown."""
    record = e.reconstruction if quantity in ("rfid", "entropy", "usage") else e.generation
    metric = {"rfid": e.reconstruction_distance, "gfid": e.distance, "is": e.score, "entropy": "codebook",
              "usage": "codebook"}.get(quantity, quantity)
    if record is None:
        return None, None
    value, interval = record["metrics"][metric], record["intervals"][metric]
    if metric == "codebook" and value is not None:
        value, interval = value[quantity], interval[quantity]
    return value, interval


def rows(results: Path, sheet: Sheet, item: str) -> list[Row]:
    """What feeds a table or figure, in the order of the sheet. A row with several checkpoints becomes several, and its name
    says which.

    Raises ReportError where a result is missing, ComparisonError where two were not measured alike, ConfigError where two rows
    of the sheet have one name, or none feeds the item.
    """
    grouped = {}
    for name, trial, label in sheet.feeding(item):
        grouped.setdefault((trial.id, name, label), []).append(trial)
    if not grouped:
        raise ConfigError(f"experiments: no row feeds {item} for {sheet.run}; name {item} among the feeds of one")
    named = {}
    for id, name, _ in grouped:
        if name and named.setdefault(name, id) != id:
            raise ConfigError(f"experiments: rows {named[name]!r} and {id!r} both feed {item} as {name!r}; rename one")
    several = {key[:2] for key in grouped if sum(key[:2] == other[:2] for other in grouped) > 1}
    found = [Row(f"{name} at {label}" if name and (id, name) in several else name, tuple(trials),
                 tuple(measured(results, sheet, trial, label) for trial in trials))
             for (id, name, label), trials in grouped.items()]
    require_alike([e for row in found for e in row.measured])
    return found


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
