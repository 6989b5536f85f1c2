"""Resumable training states: written whole or not at all, tied to the run they belong to, never unpickled untrusted."""

import json
import logging
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from restok.errors import RestokError
from restok.files import atomic_file, locked, remove_left_over

log = logging.getLogger("restok")


class StateError(RestokError):
    """A state that cannot be read or written; the message names the file and the remedy."""


def fingerprint(*facts: Any) -> str:
    """Identity of a run: a hash of the settings and inputs that its steps depend on."""
    return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def save_state(path: Path, state: dict) -> None:
    """Written whole, or the file that was there stays. Raises StateError with the remedy, on a full disk above all."""
    try:
        with atomic_file(path) as partial, partial.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:      # torch's writer reports a full disk as a RuntimeError
        raise StateError(f"{path}: could not be written ({error}); earlier states are untouched. "
                         "Free some disk space and run the same command again: it resumes.") from error


def load_state(path: Path) -> dict:
    """Read a state as plain tensors and containers. Raises StateError for a missing, truncated or foreign file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise StateError(f"{path}: no such file") from None
    except Exception as error:                    # torch raises many kinds for a damaged archive
        raise StateError(f"{path}: damaged or cut short ({type(error).__name__})") from error


class Stateful:
    """What has the states of its `parts()`, by their names, as its own."""

    parts: Callable[[], dict[str, Any]]

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self.parts().items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])


class RunFolder:
    """Where an unfinished run keeps its last two states and its log: a folder of its own for each identity, so that a run with
    other settings neither takes nor deletes them. One process at a time may hold it."""

    def __init__(self, root: Path, identity: str):
        self.root, self.folder = root, root / identity[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = locked(root / ".lock", StateError(f"{root}: another run is training here; wait for it, or stop it first"))

    def __enter__(self) -> "RunFolder":
        self._lock.__enter__()
        remove_left_over(self.folder, "*.*")
        for other in self.root.iterdir():
            if other.is_dir() and other != self.folder:
                log.info("%s: of a run with other settings or inputs, not used", other)
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)

    def states(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("state_*.pt"), key=lambda p: int(p.stem.removeprefix("state_")), reverse=True)

    def save(self, step: int, state: dict) -> None:
        save_state(self.folder / f"state_{step}.pt", {"step": step, "state": state})
        for old in self.states()[2:]:
            old.unlink()

    def resume(self) -> tuple[int, dict] | None:
        """The newest sound state. Damaged ones are named in the log and passed over."""
        for path in self.states():
            try:
                saved = load_state(path)
            except StateError as error:
                log.warning("%s; passed over", error)
                continue
            log.info("%s: resuming after step %d", path, saved["step"])
            return saved["step"], saved["state"]
        return None

    def clear(self) -> None:
        """The run is complete: all states here, those of abandoned settings too, have served."""
        for folder in self.root.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
