"""The files of a run as the reports read them: each fault names the file, and how it is made."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restok.errors import RestokError
from restok.experiments.places import stage_of
from restok.files import FileError, NpzArray
from restok.metrics.results import require_comparable


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
class Checkpoint:
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


def remedy(path: Path) -> str:
    """How `path` is made, by the workflow and by hand."""
    stage, made = stage_of(path) or (None, path)
    text = f"make it with `snakemake {made.as_posix()}`"
    if made.exists():
        text = f"remove {made.as_posix()} and {text}"
    return f"{text}, which calls `restok {stage.verb}`" if stage else text


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


def checkpoint(label: str, step: int | None, tokenizer: Path, generator: Path | None, reconstruction: Path,
               generation: Path) -> Checkpoint:
    """One checkpoint, from the folders of its models and the two results; without a generator, from the reconstruction alone.
    Raises ReportError where the files disagree with each other or with the checkpoint's step (None: unknown), or hold no
    distance."""
    read_in = Checkpoint(label, step, read(reconstruction), read(generation) if generator else None,
                         read(tokenizer / "metrics.json"), read(generator / "metrics.json") if generator else None)
    for record in read_in.records:
        require_metric(record, record["names"]["distance"])
    if len({record["features"]["sha256"] for record in read_in.records}) > 1:
        raise ReportError(f"{reconstruction} and {generation}: not measured by the same features; remove both; "
                          f"{remedy(generation)}, and the other likewise")
    if step is not None and read_in.tokenizer["step"] != step:
        raise fault(read_in.tokenizer.path, f"step {read_in.tokenizer['step']}, but the parameters put {label} at {step}")
    return read_in


def comparable(measured: Sequence[Checkpoint]) -> None:
    """Raises ComparisonError unless all were measured alike."""
    for records in by_protocol(measured):
        require_comparable([(record.path, record) for record in records])


def by_protocol(measured: Sequence[Checkpoint]) -> list[list[Record]]:
    """All reconstructions, and all generations where there are some."""
    protocols = [e.reconstruction for e in measured], [e.generation for e in measured if e.generation is not None]
    return [records for records in protocols if records]


def chosen_candidate(guidance: Record) -> Record:
    """The entry of the chosen setting among a search's candidates, which carries what was measured."""
    for candidate in guidance["candidates"]:
        if all(candidate[key] == guidance["chosen"][key] for key in ("schedule", "scale", "start")):
            return candidate
    raise fault(guidance.path, "the chosen setting is not among the candidates")
