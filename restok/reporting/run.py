"""A run directory as the reports read it: results/NAME/{tokenizer,generator,guidance,evaluation,panel,samples,data}."""

import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restok.config import Params

COMMANDS = {"data": "prepare", "classifier": "train-classifier", "tokenizer": "train-tokenizer",
            "generator": "train-generator", "guidance": "search-guidance", "evaluation": "evaluate",
            "panel": "reconstruct", "samples": "sample"}   # by the folder of a run that they write


class ReportError(ValueError):
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
    """What was measured with one checkpoint of the tokenizer. `distance` and `score` name the metrics, such as FID and IS."""

    label: str
    step: int
    distance: str
    score: str
    reconstruction: Record
    generation: Record

    @property
    def features(self) -> str:
        """The network behind the numbers: 'digits classifier (FD-digits, IS-digits)'."""
        return f"{self.generation['features']['name']} ({self.distance}, {self.score})"


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
    path = require(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, column_major, dtype = header(file)
            start, size = file.tell(), dtype.itemsize * math.prod(shape[1:])
            if column_major:
                raise ValueError("stored column by column")
            found = {}
            for row in sorted(rows):
                file.seek(start + row * size)
                found[row] = np.frombuffer(file.read(size), dtype).reshape(shape[1:])
            return found
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise fault(path, f"{name} cannot be read ({error})") from None


def evaluation(run_dir: Path, params: Params, label: str) -> Evaluation:
    """The evaluation of one checkpoint; ReportError where its files disagree with each other or with the parameters."""
    folder = Path(run_dir) / "evaluation" / label
    reconstruction, generation = read(folder / "reconstruction.json"), read(folder / "generation.json")
    distance, score = _metric(generation, "FID", "FD-"), _metric(generation, "IS", "IS-")
    for record in (reconstruction, generation):
        if not math.isfinite(record["metrics"][distance]):
            raise fault(record.path, f"{distance} is {record['metrics'][distance]}")
    _same(reconstruction, generation, "features", "sha256")
    step = params.tokenizer_training.checkpoints[label]
    trained = read(Path(run_dir) / "tokenizer" / label / "metrics.json")
    if trained["step"] != step:
        raise fault(trained.path, f"step {trained['step']}, but the parameters put {label} at {step}")
    return Evaluation(label, step, distance, score, reconstruction, generation)


def evaluations(run_dir: str | Path, params: Params) -> list[Evaluation]:
    """Every checkpoint, in training order. Raises ReportError where one was measured by other features or against another
    reference than the first, because distances then compare nothing."""
    found = [evaluation(Path(run_dir), params, label) for label in params.tokenizer_training.checkpoints]
    for other in found[1:]:
        _same(found[0].generation, other.generation, "features", "sha256")
        for protocol in ("reconstruction", "generation"):
            _same(getattr(found[0], protocol), getattr(other, protocol), "reference", "digest")
    return found


def best(run_dir: str | Path, params: Params) -> Evaluation:
    """The checkpoint with the lowest generation distance, as the paper chooses its own."""
    return min(evaluations(run_dir, params), key=lambda e: e.generation["metrics"][e.distance])


def _metric(record: Record, plain: str, prefix: str) -> str:
    names = [name for name in record["metrics"] if name == plain or name.startswith(prefix)]
    if len(names) != 1:
        raise fault(record.path, f"expected one metric named {plain} or {prefix}..., found {names}")
    return names[0]


def _same(a: Record, b: Record, section: str, key: str) -> None:
    if a[section][key] != b[section][key]:
        raise ReportError(f"{a.path} and {b.path}: not the same {section} ({a[section][key]}, {b[section][key]}); "
                          f"remove both; {remedy(a.path)}, and the other likewise")
