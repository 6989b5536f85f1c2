"""Resumable training states: written whole or not at all, tied to the run they belong to, never unpickled untrusted."""

import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from restok.errors import RestokError
from restok.files import FULL, atomic_file, reading, run

log = logging.getLogger("restok")


class StateError(RestokError):
    """A state that cannot be read or written; the message names the file and the remedy."""


def save_state(path: Path, state: dict) -> None:
    """Written whole, or the file that was there stays. Raises StateError with the remedy, on a full disk above all."""
    try:
        with atomic_file(path) as partial, partial.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:      # torch's writer reports a full disk as a RuntimeError
        raise not_written(path, error) from error


def not_written(path: Path, error: Exception) -> StateError:
    """What is said where a training could not write a file."""
    full = not isinstance(error, OSError) or error.errno in FULL
    remedy = "Free some disk space" if full else "Make its folder one that can be written"
    return StateError(f"{path}: could not be written ({error}); earlier states are untouched. {remedy} and run the same "
                      "command again: it resumes.")


def load_state(path: Path) -> dict:
    """Read a state as plain tensors and containers. Raises StateError for a missing, truncated, altered or foreign file,
    FileError for one that cannot be read."""
    if not path.exists():
        raise StateError(f"{path}: no such file")
    with reading(path, lambda error: StateError(f"{path}: damaged or cut short ({type(error).__name__})")):
        with zipfile.ZipFile(path) as archive:
            if altered := archive.testzip():      # torch writes checksums, and does not compare them
                raise StateError(f"{path}: {altered} in it was altered")
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise StateError(f"{path}: holds a {type(state).__name__}, not a state")
    return state


class Stateful:
    """What has the states of its `parts()`, by their names, as its own."""

    parts: Callable[[], dict[str, Any]]

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self.parts().items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])


class RunFolder(run.RunFolder):
    """Where an unfinished run of a training keeps its last two states and its log."""

    error = StateError
    _loaded: tuple[Path | None, dict | None] = (None, None)

    def __enter__(self) -> "RunFolder":
        super().__enter__()
        for other in self.root.glob("*/state_*.pt"):
            if other.parent != self.folder:
                log.info("%s: of a run with other settings or inputs, not used; delete it, if that run is given up", other)
        return self

    def states(self) -> list[Path]:
        """Newest first; files of other names, such as copies of states, are none."""
        steps = {path: path.stem.removeprefix("state_") for path in self.folder.glob("state_*.pt")}
        own = (path for path, step in steps.items() if step.isdecimal())
        return sorted(own, key=lambda path: int(steps[path]), reverse=True)

    def save(self, step: int, state: dict) -> None:
        self.require_held()
        save_state(self.folder / f"state_{step}.pt", {"step": step, "identity": self.folder.name, "state": state})
        self.note()
        for old in self.states()[2:]:
            old.unlink()

    def require_space(self, out: Path, state: int, finished: int) -> None:
        """Says in the log what disk the run needs, by the bytes of a state and of what `out` will hold. Raises StateError where
        there is no room for one of each, or for what is still missing of them."""
        missing = {self.folder: max(state, finished) if self.states() else state + finished}
        if os.stat(out.parent).st_dev != os.stat(self.folder).st_dev:
            missing[out.parent] = finished
        for place, size in missing.items():
            free = shutil.disk_usage(place).free
            facts = f"a state takes {_gb(state)}, of which there are up to 3, and what is made of them {_gb(finished)}"
            log.info("%s: %s; %s are free", place, facts, _gb(free))
            if free < size:
                raise StateError(f"{place}: {_gb(free)} are free on this disk, but {facts}; free at least {_gb(size - free)}, "
                                 "or name a folder on another disk")

    def resume(self) -> tuple[int, dict] | None:
        """Step and state of `newest`."""
        path = self.newest()
        return path and self.load(path)

    def newest(self) -> Path | None:
        """The newest sound state of this run. Damaged and strange ones are named in the log and passed over."""
        for path in self.states():
            try:
                saved = load_state(path)
                if saved.keys() != {"step", "identity", "state"}:
                    raise StateError(f"{path}: not a state of a run")
                if saved["identity"] != self.folder.name or path.stem != f"state_{saved['step']}":
                    raise StateError(f"{path}: of another run, or of another step")
            except StateError as error:
                log.warning("%s; passed over", error)
                continue
            log.info("%s: resuming after step %d", path, saved["step"])
            self._loaded = path, saved                   # it may take minutes to read
            return path
        return None

    def load(self, path: Path) -> tuple[int, dict]:
        """Step and state of a file that `newest` found, here or in another process."""
        (found, saved), self._loaded = self._loaded, (None, None)
        saved = saved if found == path else load_state(path)
        return saved["step"], saved["state"]

    def clear(self) -> None:
        """The run is complete: its states have served, too."""
        for path in (*self.states(), self.folder / "log.jsonl"):
            path.unlink(missing_ok=True)
        super().clear()


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
