"""A run directory as the reports read it: results/NAME/{tokenizer,generator,guidance,evaluation,panel,samples,data}."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restok.config import Guidance, Params
from restok.config.load import parse
from restok.errors import RestokError
from restok.files import FileError, NpzArray
from restok.metrics.results import require_comparable

COMMANDS = {"data": "prepare", "classifier": "train-classifier", "tokenizer": "train-tokenizer",
            "generator": "train-generator", "guidance": "search-guidance", "evaluation": "evaluate",
            "panel": "panel", "samples": "sample"}   # by the folder of a run that they write


class ReportError(RestokError):
    """An input of a report that is missing or does not fit; the message names the file and the remedy."""


class Record(dict):
    """A JSON object that knows its file: a missing key raises ReportError instead of KeyError."""

    def __init__(self, pairs, path: Path):
        super().__init__(pairs)
        self.path = path

    def __missing__(self, key: str):
        raise fault(self.path, f"has no {key!r}")


@dataclass(frozen=True)
class Evaluation:
    """What was measured with one checkpoint of the tokenizer. Of finished weights `step` is unknown, None, and a tokenizer may
    come without a generator."""

    label: str
    step: int | None
    reconstruction: Record
    generation: Record | None
    tokenizer: Record            # what the training of each wrote
    generator: Record | None

    @property
    def records(self) -> list[Record]:
        """The results that there are."""
        return [record for record in (self.reconstruction, self.generation) if record is not None]

    @property
    def distance(self) -> str:
        """The name of the generation's distance, such as FID; blank where nothing was generated."""
        return self.generation["names"]["distance"] if self.generation else ""

    @property
    def reconstruction_distance(self) -> str:
        """The name of the reconstruction's distance, such as rFID."""
        return self.reconstruction["names"]["distance"]

    @property
    def score(self) -> str:
        """The name of the generation's score, such as IS; blank where nothing was generated."""
        return self.generation["names"]["score"] if self.generation else ""

    @property
    def features(self) -> str:
        """The network behind the numbers: 'digits classifier (rFD-digits, FD-digits, IS-digits)'."""
        names = filter(None, (self.reconstruction_distance, self.distance, self.score))
        return f"{self.reconstruction['features']['name']} ({', '.join(names)})"


FOLDERS = ("data", "classifier", "tokenizer", "generator")     # made whole; the other files are targets of their own


def target(path: Path) -> Path:
    """What the workflow makes to make `path`: the file, or the folder of a run that holds it."""
    if path.suffix == ".json" and path.parent.name in FOLDERS[:2]:
        return path.parent
    if path.suffix == ".json" and path.parent.parent.name in FOLDERS[2:]:
        return path.parent
    return path


def remedy(path: Path) -> str:
    """How `path` is made, by the workflow and by hand."""
    made = target(path)
    text = f"make it with `snakemake {made.as_posix()}`"
    if made.exists():
        text = f"remove {made.as_posix()} and {text}"
    for folder in (made.name, made.parent.name, made.parent.parent.name):
        if folder in COMMANDS and path.suffix in (".json", ".npz"):
            return f"{text}, which calls `restok {COMMANDS[folder]}`"
    return text


def fault(path: Path, what: str) -> ReportError:
    """The error about `path`, with its remedy."""
    return ReportError(f"{path}: {what}; {remedy(path)}")


def require(path: str | Path) -> Path:
    """`path`, which exists; else ReportError with the remedy."""
    path = Path(path)
    if not path.is_file():
        raise fault(path, "missing")
    return path


def read(path: str | Path) -> Record:
    """A JSON object. Raises ReportError when the file is missing or is not one."""
    path = require(path)
    try:
        found = json.loads(path.read_text(), object_pairs_hook=lambda pairs: Record(pairs, path))
    except ValueError as error:
        raise fault(path, f"not valid JSON ({error})") from None
    if not isinstance(found, Record):
        raise fault(path, f"expected a JSON object, found {type(found).__name__}")
    return found


def arrays(path: str | Path, *names: str) -> list[np.ndarray]:
    """The named arrays of an npz file. Raises ReportError when the file is missing, damaged or without one of them."""
    path = require(path)
    try:
        with np.load(path) as found:
            return [found[name] for name in names]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise fault(path, f"{', '.join(names)} cannot be read ({error})") from None


def array_rows(path: str | Path, name: str, rows: Iterable[int]) -> dict[int, np.ndarray]:
    """Some rows of one array of an npz file, by index, without holding the whole array in memory."""
    try:
        array = NpzArray(require(path), name)
        return {row: array.read(row, row + 1)[0] for row in sorted(rows)}
    except FileError as error:
        raise ReportError(f"{error}; {remedy(Path(path))}") from None


def require_metric(record: Record, metric: str) -> Any:
    """A metric that the reports cannot do without. Raises ReportError with the reason where it was not measured."""
    if record["metrics"][metric] is None:
        raise ReportError(f"{record.path}: {metric} was not measured: {record['refused'][metric]}; mend that, then "
                          f"{remedy(record.path)}")
    return record["metrics"][metric]


def evaluation(label: str, step: int | None, tokenizer: Path, generator: Path | None, reconstruction: Path,
               generation: Path) -> Evaluation:
    """One checkpoint, from the folders of its models and the two results; without a generator, from the reconstruction alone.
    Raises ReportError where the files disagree with each other or with the checkpoint's step (None: unknown), or hold no
    distance."""
    found = Evaluation(label, step, read(reconstruction), read(generation) if generator else None,
                       read(tokenizer / "metrics.json"), read(generator / "metrics.json") if generator else None)
    for record in found.records:
        require_metric(record, record["names"]["distance"])
    if len({record["features"]["sha256"] for record in found.records}) > 1:
        raise ReportError(f"{reconstruction} and {generation}: not measured by the same features; remove both; "
                          f"{remedy(generation)}, and the other likewise")
    if step is not None and found.tokenizer["step"] != step:
        raise fault(found.tokenizer.path, f"step {found.tokenizer['step']}, but the parameters put {label} at {step}")
    return found


def evaluations(run_dir: str | Path, params: Params) -> list[Evaluation]:
    """Every checkpoint of a run, in training order. Raises ComparisonError where one was measured by other features or against
    another reference than the first, because distances then compare nothing."""
    run_dir = Path(run_dir)
    found = [evaluation(label, step, run_dir / "tokenizer" / label, run_dir / "generator" / label,
                        *(run_dir / "evaluation" / label / f"{protocol}.json" for protocol in ("reconstruction", "generation")))
             for label, step in params.tokenizer_training.checkpoints.items()]
    comparable(found)
    return found


def comparable(measured: Sequence[Evaluation]) -> None:
    """Raises ComparisonError unless all were measured alike."""
    for records in by_protocol(measured):
        require_comparable([(record.path, record) for record in records])


def by_protocol(measured: Sequence[Evaluation]) -> list[list[Record]]:
    """All reconstructions, and all generations where there are some."""
    found = [e.reconstruction for e in measured], [e.generation for e in measured if e.generation is not None]
    return [records for records in found if records]


def guidance(path: Path, params: Params) -> tuple[Guidance, Record | None]:
    """What guided the samples: the parameters' own setting, or the choice of the search in `path`, with that record."""
    if params.sampling.guidance is not None:
        return params.sampling.guidance, None
    found = read(path)
    return parse(Guidance, found["chosen"], str(path)), found


def chosen_candidate(guidance: Record) -> Record:
    """The entry of the chosen setting among a search's candidates, which carries what was measured."""
    for candidate in guidance["candidates"]:
        if all(candidate[key] == guidance["chosen"][key] for key in ("schedule", "scale", "start")):
            return candidate
    raise fault(guidance.path, "the chosen setting is not among the candidates")
