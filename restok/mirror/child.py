"""A mirror beside other work: a process of its own, which takes what time the machine has left and ends with the other one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

SWITCH, OFF = "RESTOK_TRACKING", "off"       # of the environment: no mirror is started; the workflow says so to its jobs
LAST = 20                            # seconds of a last look that somebody waits for
_STARTED: list[subprocess.Popen] = []        # a process that is dropped closes its pipe


def start(*runs: str) -> subprocess.Popen | None:
    """`restok track-sync --follow` for some runs. It looks once more when this process closes its standard input, or ends by
    whatever; nobody waits for it. What it has to say is in runs/RUN/tracking/mirror.log. None where it is turned off."""
    if not runs or os.environ.get(SWITCH) == OFF:
        return None
    command = Path(sys.executable).with_name("restok")
    words = [command if command.exists() else shutil.which("restok") or "restok", "track-sync", *runs, "--follow", "--child"]
    try:
        said = Path("runs", runs[0], "tracking", "mirror.log")
        said.parent.mkdir(parents=True, exist_ok=True)
        with said.open("ab") as file:        # a group of its own: Ctrl-C is not for it; in this session, whose share it takes
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=file, stderr=file, process_group=0)
    except OSError:                          # of a full disk, a folder that is read only: the work goes on without
        return None
    _STARTED.append(process)
    return process


@contextmanager
def running(*runs: str, patience: float | None = LAST) -> Iterator[None]:
    """Within the block, and for a last look, which nobody waits for longer than `patience` seconds; None: it ends by itself."""
    process = start(*runs)
    try:
        yield
    finally:
        if process:
            with suppress(OSError):
                process.stdin.close()
            if patience is not None:
                _end(process, patience)


def _end(process: subprocess.Popen, patience: float) -> None:
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def beside(out: Path) -> AbstractContextManager[None]:
    """While `out` is made, where that is a result of results/RUN in this folder."""
    parts = out.parts
    ours = len(parts) > 2 and parts[0] == "results" and Path("params", f"{parts[1]}.yaml").is_file()
    return running(*parts[1:2] * ours, patience=None)


def until_parent_ends() -> Callable[[], bool]:
    """In the child: takes no more than the time that is left, and tells whether who started it has closed the pipe."""
    os.nice(19)                          # 15 parts of a core, of 1,024 that other work on it has; SCHED_IDLE's 3 are too few
    ended = Event()

    def wait() -> None:
        sys.stdin.buffer.read()
        ended.set()

    Thread(target=wait, daemon=True).start()
    return ended.is_set
