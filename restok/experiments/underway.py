"""The long work of a run that goes on, and that stopped unfinished: read from the notes that it leaves in runs/RUN."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from restok.config.base import Count
from restok.experiments.places import STAGES
from restok.files import FileError
from restok.files.loading import Known, load_model
from restok.files.noted import NAME
from restok.files.owner import DEAD, lives, system
from restok.progress import left_of, rated

APART = {"finished", "removed", "slurm"}             # folders in which no work lies
PART = re.compile(r"(\.part(?P<before>\d+)of|/(?P<number>\d+)-of-)(?P<count>\d+)$")    # a verb counts from 0, Snakemake from 1


class _Process(Known):
    host: str
    system: str
    pid: int = Field(gt=0)
    job: str | None
    started: str | None


class _Note(Known):
    """What `restok.files.noted` writes."""

    description: str
    unit: str
    done: Count
    total: Count | None
    rate: float
    began: float
    updated: float
    error: str | None
    process: _Process


class Place(NamedTuple):
    """Whose work it is: as in results/RUN, a stage, and where it has them, a row, a checkpoint, and of its candidates or parts
    which one."""

    stage: str
    row: str | None = None
    checkpoint: str | None = None
    which: str = ""

    def __str__(self) -> str:
        """'main 250k tokenizer', 'main 250k codes 1 of 4'."""
        return " ".join(filter(None, (self.row, self.checkpoint, self.stage, self.which)))


@dataclass(frozen=True)
class Running:
    """One piece of long work: of a training the steps of its checkpoint, where those of earlier calls count as done."""

    run: str
    place: Place
    identity: str | None     # of what is made, its first twelve digits; None of a measurement
    description: str         # of the loop it is in: 'tokenizer 250k', 'measuring samples'
    unit: str
    done: int
    total: int | None
    rate: float              # a second, of this call
    began: float             # this call, and when it was last heard of: seconds since 1970
    updated: float
    host: str
    pid: int
    job: str | None          # of SLURM
    stopped: str | None      # None: it is at work; else why it is not

    @property
    def share(self) -> float | None:
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def percent(self) -> str:
        """Of it, or where nobody knows how much it will be, what is done."""
        return f"{self.done} {self.unit}".rstrip() if self.share is None else f"{int(100 * self.share)} %"

    @property
    def speed(self) -> str:
        """'12.5 steps/s'."""
        return rated(self.rate, self.unit)

    @property
    def left(self) -> float:
        """Seconds, at this call's rate; 0 where nobody knows, as of what comes after the last step."""
        return (self.total - self.done) / self.rate if left_of(self.done, self.total, self.rate) else 0.0

    @property
    def time_left(self) -> str:
        """'0:12:10 left'; empty where nobody knows."""
        return "finishing" if self.share == 1 else left_of(self.done, self.total, self.rate)

    def __str__(self) -> str:
        """'63 %, 0:12:10 left', 'stopped at 63 % (killed)'."""
        if self.stopped:
            return f"stopped at {self.percent} ({self.stopped})"
        return ", ".join(filter(None, (self.percent, self.time_left)))


def runs_at(folder: Path = Path("runs")) -> list[Path]:
    """Of every run that has worked in this folder, where it did."""
    return sorted(path for path in folder.glob("*") if path.is_dir() and path.name not in APART)


def running(root: str | Path) -> list[Running]:
    """The long work of one run, whose notes lie below `root`, which is runs/RUN: in the order of the stages, what is at work
    first. What cannot be read, as what another version noted, is left out."""
    root, found = Path(root), {}
    for path in _notes(root):
        try:
            note, place = load_model(path, _Note), _place(path.relative_to(root))
        except FileError:
            continue                                 # it was finished in between, or is no note
        if place and (place not in found or found[place].updated < note.updated):       # of other settings, the last
            found[place] = _running(root.name, place, path, note)
    order = {stage: number for number, stage in enumerate(STAGES)}
    return sorted(found.values(), key=lambda each: (each.stopped is not None, order[each.place.stage], each.began))


def _notes(root: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in APART and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if name.endswith(NAME) and not name.startswith("."))


def _running(run: str, place: Place, path: Path, note: _Note) -> Running:
    process = note.process
    return Running(run, place, path.parent.name if path.name == NAME else None, note.description, note.unit, note.done,
                   note.total, note.rate, note.began, note.updated, process.host, process.pid, process.job, _stopped(note))


def _stopped(note: _Note) -> str | None:
    """A process of this machine is at work while it lives, one elsewhere while its note is written again and again."""
    if note.error is not None:
        return note.error
    if note.process.system == system():
        return None if lives(note.process.model_dump()) else "killed"
    return None if time.time() - note.updated < DEAD else "no sign of life"


def _place(note: Path) -> Place | None:
    """Whose a note is: what is unfinished of results/RUN/PATH lies in runs/RUN/PATH, in a folder for each identity, or beside.
    """
    work = note.parent.parent.as_posix() if note.name == NAME else note.as_posix().removesuffix(f".{NAME}")
    work = work.removeprefix("parts/")
    part = PART.search(work)
    if part:
        work, number = work[:part.start()], part["number"] or int(part["before"]) + 1
    for stage, pattern in PLACES.items():
        if match := pattern.fullmatch(work):
            named = match.groupdict()
            own = "_".join(value for name, value in named.items() if name not in ("trial", "label"))
            return Place(stage, named.get("trial"), named.get("label"), f"{number} of {part['count']}" if part else own)
    return None


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(str(Path(path).with_suffix("")))))


PLACES = {name: _pattern(stage.path) for name, stage in STAGES.items()}
