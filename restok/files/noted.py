"""How far long work is, noted beside what it has finished so far: `restok progress`, the workflow and MLflow read it."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from restok import progress
from restok.files.owner import this_process

NAME = "progress.json"           # in the folder of a run; of a file that is made, with its own name before it
EVERY = 5.0                      # seconds from one note to the next
log = logging.getLogger("restok")


def beside(path: Path) -> Path:
    """Where it is noted how far a file is that is being made: 'samples.progress.json'."""
    return path.with_name(f"{path.stem}.{NAME}")


@contextmanager
def noted_in(path: Path | None) -> Iterator[None]:
    """Within the block, `path` says how far the loops are that this process tracks (`restok.progress`), once one has begun.
    None: nothing is noted.

    A thread of its own writes it, so the work does not wait for a slow disk, and a full one is no error of the work. Where the
    block ends well, the note is removed; after an error it names the error; of what was killed, it shows no sign of life.
    """
    if path is None:
        yield
        return
    note, done = _Note(path), Event()
    writer = Thread(target=note.keep, args=(done,), daemon=True)
    writer.start()
    error = None
    try:
        yield
    except BaseException as failure:
        error = type(failure).__name__
        raise
    finally:
        done.set()
        writer.join(EVERY)               # the file system may hang
        note.end(error)


class _Note:
    def __init__(self, path: Path):
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        self.process, self.began = this_process(), time.time()
        self.around, self.loop = tuple(progress.loops), None

    def keep(self, done: Event) -> None:
        while not done.wait(EVERY):
            self.write()

    def end(self, error: str | None) -> None:
        if error is not None:
            self.write(error)
            return
        for file in (self.path, self.partial):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def write(self, error: str | None = None) -> None:
        """Of the outermost loop of the block, or where none is on its way, of the last one."""
        self.loop = loop = next((loop for loop in tuple(progress.loops) if loop not in self.around), self.loop)
        if loop is None:
            return
        facts = {"description": loop.description, "unit": loop.unit, "done": loop.done, "total": loop.total,
                 "rate": loop.rate, "began": self.began, "updated": time.time(), "error": error, "process": self.process}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.partial.write_text(json.dumps(facts), "utf-8", "backslashreplace")
            os.replace(self.partial, self.path)
        except OSError as failure:
            log.debug("%s: %s", self.path, failure)
            with suppress(OSError):
                self.partial.unlink(missing_ok=True)
