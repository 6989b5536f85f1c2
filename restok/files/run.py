"""Where a verb works on what it makes: a folder for what is unfinished, and for what is finished until nothing shows it."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from restok.errors import RestokError
from restok.files import FileError, atomic_folder, new_folder, read_json, real, remove_left_over, reserved, write_json
from restok.files.artifact import MANIFEST, Origin, already_made, log, publish
from restok.files.making import Making, made, together
from restok.files.noted import NAME, noted_in
from restok.files.owner import Owner

MARK = ".run.lock"                       # by which the folder of a run is known
CALLS = "calls.json"                     # what unfinished calls have cost
ORIGIN = "origin.json"                   # the manifest of what is made here, before there is anything


class RunFolder:
    """A folder of its own for each identity, so that a run with other settings neither takes nor deletes what is here. One
    process at a time may hold it. Raises `error` for a folder within that of another run, or around one."""

    error: type[RestokError] = FileError

    def __init__(self, root: Path, identity: str):
        self.root, self.folder = root, root / identity[:12]
        inner = chain(root.glob(f"*/**/{MARK}"), root.glob("*/*/**/state_*.pt"))
        if other := next(chain((up for up in real(root).parents if (up / MARK).exists()), inner), None):
            raise self.error(f"{root}: {other} belongs to another run; give every run a folder of its own, side by side")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.owner = Owner(root, lambda other: self.error(
            f"{root}: another run is at work here ({other}); wait for it, or stop it first"))

    def __enter__(self) -> "RunFolder":
        with ExitStack() as entered:
            entered.enter_context(self.owner)
            (self.root / MARK).touch()
            remove_left_over(self.folder, "*.*")
            self.before = self._calls()
            entered.push(self._note_what_failed)
            entered.enter_context(noted_in(self.folder / NAME))
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def _note_what_failed(self, kind: type | None, *error: Any) -> None:
        if kind is not None and self.owner.holds():
            with suppress(OSError):                    # of a full disk above all, which may be the error
                self.note(0)

    def note(self, unknown: int = 1) -> None:
        """Keep what the calls for this run have cost so far. `unknown`: 1 while this one goes on, which may be killed."""
        write_json(self.folder / CALLS, together([made() | {"unknown": unknown}, *self.before]))

    def _calls(self) -> list[Making]:
        """Of the calls before this one."""
        try:
            return read_json(self.folder / CALLS)
        except FileError:
            return []

    def require_held(self) -> None:
        """Raises `error` where another run took this one for dead, and the folder over."""
        if not self.owner.holds():
            raise self.error(f"{self.root}: another run took it over, since this one gave no sign of life; nothing more is "
                             "written")

    @property
    def finished(self) -> Path:
        """The folder of what was made, which is kept: of the same files as the output that it became."""
        return self.folder / "finished"

    def clear(self) -> None:
        """The run is complete: its journals have served, and so has what other settings made here before, and nothing shows any
        more."""
        own = (self.folder / name for name in (CALLS, ORIGIN))
        for served in (*self.folder.glob("*.journal"), *own, *self.root.glob(f"*/{NAME}")):
            served.unlink(missing_ok=True)
        for manifest in self.root.glob(f"*/finished/{MANIFEST}"):
            if manifest.parent != self.finished and manifest.stat().st_nlink == 1:
                shutil.rmtree(manifest.parent)


def make(out: Path, origin: Origin, run: Path | None, write: Callable[[Path], dict[str, Any]]) -> None:
    """Have `write` fill a new folder, which becomes `out` with its manifest, of which `write` returns more facts; but for what
    stands already. In `run`, where it is named, what was made is kept, for when `out` is deleted or never comes to be.

    Raises FileError where `out` holds anything else than what this verb makes, and where another process writes there.
    """
    make_resumed(out, origin, run, lambda folder, kept: write(folder))


def make_resumed(out: Path, origin: Origin, run: Path | None, write: Callable[[Path, Path | None], dict[str, Any]]) -> None:
    """`make`, where `write` is also told the folder of the run, for a journal of what is finished so far; None without one."""
    if already_made(out, origin):
        return
    with reserved(out):
        if run is None:
            with new_folder(out) as folder:
                origin.seal(folder, out, **write(folder, None))
            return
        with RunFolder(run, origin.identity) as kept:
            keep(kept, out, origin, lambda folder: write(folder, kept.folder))


def keep(run: RunFolder, out: Path, origin: Origin, write: Callable[[Path], dict[str, Any]]) -> None:
    """`make`, where `out` is reserved and the folder of the run is held."""
    if origin.made(run.finished):
        log.info("%s: was finished before; taken from %s", out, run.finished)
    else:
        run.note()
        write_json(run.folder / ORIGIN, origin.manifest(out, run.before) | {"out": out.as_posix()})
        with atomic_folder(run.finished) as folder:
            facts = write(folder)
            origin.seal(folder, out, [*run.before, *facts.pop("makings", ())], **facts)
            run.require_held()
    publish(run.finished, out)
    run.clear()
