"""The files of a run as the reports read them: each fault names the file, and how it is made."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from restok.errors import RestokError
from restok.experiments.places import stage_of
from restok.files import FileError
from restok.files.loading import Known, Record, load_record
from restok.files.npz import NpzArray
from restok.stages.search import finalists_of


class ReportError(RestokError):
    """An input of a report that is missing or does not fit; the message names the file and the remedy."""


def remedy(path: Path) -> str:
    """How `path` is made, by the workflow and by hand."""
    stage, made = stage_of(path) or (None, path)
    text = f"make it with `snakemake --cores 2 {made.as_posix()}`"
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


def read(path: str | Path, model: type[Known] = Known) -> Record:
    """A JSON object that fits `model`. Raises ReportError, which names file and key, when the file is missing or does not."""
    path = require(path)
    return load_record(path, model, partial(fault, path))


# The arrays that figures read: kind of number, then shape, in which a letter is as long everywhere in a file.
SHAPES = {
    "originals": "bytes m h w 3", "prefixes": "bytes m l h w 3", "psnr": "floats m l", "kept": "integers l",
    "attention": "floats layers levels scales", "labels": "integers n",
    "encoder_mask": "bools n n", "encoder_groups": "integers g", "encoder_names": "text g", "encoder_ids": "integers n 2",
    "decoder_groups": "integers k", "decoder_names": "text k", "decoder_ids": "integers d 2",
    "generator_mask": "bools t t", "generator_groups": "integers s", "generator_inputs": "text t"}
DTYPES = {"bytes": "u", "floats": "f", "integers": "iu", "bools": "b", "text": "U"}


def arrays(path: str | Path, *names: str) -> list[np.ndarray]:
    """The named arrays of an npz file, of the shapes that they have in `SHAPES`. Raises ReportError when the file is missing,
    damaged, or without one of them, or one is of another shape, of other numbers, or empty."""
    path = require(path)
    try:
        with np.load(path) as archive:
            found = {name: archive[name] for name in names}
    except Exception as error:           # numpy and zipfile raise a dozen kinds on damaged files
        raise fault(path, f"{', '.join(names)} cannot be read ({error})") from None
    lengths = {}
    for name, array in found.items():
        _require_shape(path, name, array, lengths)
    return list(found.values())


def array_rows(path: str | Path, name: str, rows: Iterable[int]) -> dict[int, np.ndarray]:
    """Some rows of one array of an npz file, by index, without holding the whole array in memory."""
    try:
        array = NpzArray(require(path), name)
        return {row: array.read(row, row + 1)[0] for row in sorted(rows)}
    except FileError as error:
        raise ReportError(f"{error}; {remedy(Path(path))}") from None


def _require_shape(path: Path, name: str, array: np.ndarray, lengths: dict[str, int]) -> None:
    kind, *letters = SHAPES[name].split()
    fits = array.dtype.kind in DTYPES[kind] and len(array.shape) == len(letters) and 0 not in array.shape and all(
        length == (int(letter) if letter.isdecimal() else lengths.setdefault(letter, length))
        for letter, length in zip(letters, array.shape, strict=True))
    if not fits or (kind == "bytes" and array.dtype != np.uint8):
        known = ", ".join(f"{letter} = {lengths[letter]}" for letter in letters if letter in lengths)
        raise fault(path, f"{name} is {array.dtype} {array.shape}; expected {kind} ({' '.join(letters)})"
                    + (f" with {known}" if known else ""))


def require_groups(path: Path, name: str, sizes: np.ndarray, tokens: int) -> None:
    """Raises ReportError unless these sizes of groups make up the tokens."""
    if (sizes < 1).any() or sizes.sum() != tokens:
        raise fault(path, f"{name} {sizes.tolist()} do not make up {tokens} tokens")


def require_metric(record: Record, metric: str) -> Any:
    """A metric that the reports cannot do without. Raises ReportError with the reason where it was not measured."""
    if record["metrics"][metric] is None:
        raise ReportError(f"{record.path}: {metric} was not measured: {record['refused'][metric]}; mend that, then "
                          f"{remedy(record.path)}")
    return record["metrics"][metric]


def chosen_candidate(guidance: Record) -> Record:
    """The entry of the chosen setting among a search's finalists, or where it has none its candidates, which carries what was
    measured."""
    for candidate in finalists_of(guidance) or guidance["candidates"]:
        if all(candidate[key] == guidance["chosen"][key] for key in ("schedule", "scale", "start")):
            return candidate
    raise fault(guidance.path, f"the chosen setting is not among the {'finalists' if finalists_of(guidance) else 'candidates'}")
