"""Who holds a folder: a file in it names host, process and job, and is touched while they live. Unlike locks this holds on
network file systems."""

import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from restok import slurm
from restok.errors import RestokError

BEAT, DEAD = 15.0, 120.0         # seconds from one sign of life to the next, and after which there is none
NAME = ".run.owner"              # and a number: the next owner takes the next one
SINCE = "%Y-%m-%d %H:%M UTC"
log = logging.getLogger("restok")
Record = dict[str, Any]


class Owner:
    """Holds `folder` within the block. A living owner is respected, with the error that `refuse` makes of a description; a dead
    one is named in the log, and followed.

    A process of this machine is dead when it is gone. One elsewhere is when SLURM says so of its job; and where SLURM cannot
    tell, when its file was not touched for `DEAD` seconds by the clock of the file system, for which is waited.
    """

    def __init__(self, folder: Path, refuse: Callable[[str], RestokError]):
        self.folder, self.refuse = folder, refuse
        self.record: Record = this_process() | {"token": uuid4().hex}

    def __enter__(self) -> "Owner":
        while not self._take():
            pass
        self._left = Event()
        Thread(target=self._live, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._left.set()
        if self.holds():
            self.file.unlink(missing_ok=True)

    def holds(self) -> bool:
        """False once another took this owner for dead, as after hours without its network."""
        return _read(self.file) == self.record

    def _take(self) -> bool:
        """Whether this is the owner now: false where others came or went meanwhile. Of two that follow the same owner one alone
        creates the next number, and who sees anybody else beside it withdraws."""
        before = self._owners()
        for path, record in before.items():
            self._await_end(path, record)
        number = max((int(path.suffix[1:]) for path in before), default=0) + 1
        self.file = self.folder / f"{NAME}.{number}"
        try:
            file = self.file.open("x", encoding="utf-8")
        except FileExistsError:
            return False
        try:
            with file:
                json.dump(self.record, file)
        except OSError as error:
            self.file.unlink()
            raise OSError(error.errno, error.strerror, str(self.file)) from None
        if self._owners() != before | {self.file: self.record}:
            self.file.unlink()
            return False
        for path, record in before.items():
            log.warning("%s: was held by %s, which is dead; taken over", self.folder, describe(record))
            path.unlink(missing_ok=True)
        return True

    def _await_end(self, path: Path, record: Record | None) -> None:
        """Returns when the owner is dead, or another than it was."""
        if record and record["system"] == self.record["system"]:
            if lives(record):
                raise self.refuse(describe(record))
            return
        scheduled = self._scheduled(path, record) if record and record["job"] else None
        if scheduled:
            raise self.refuse(describe(record))
        if scheduled is False:
            return
        touched = _touched(path)
        if self._age(touched) < DEAD:
            log.info("%s: held by %s; waits up to %.0f s for a sign of life", self.folder, describe(record), DEAD)
        while self._age(touched) < DEAD:
            time.sleep(min(1.0, BEAT))
            if _read(path) != record:
                return
            if _touched(path) != touched:
                raise self.refuse(describe(record))

    def _scheduled(self, path: Path, record: Record) -> bool | None:
        """Whether the owner lives, as SLURM has it of its job. None where it cannot tell: of a job on another cluster, or of
        another user, which it may hide; and of another process in this start of this job."""
        clusters = {record.get("cluster"), self.record["cluster"]} - {None}
        if len(clusters) > 1 or not _own(path):
            return None
        since = datetime.strptime(record["since"], SINCE).replace(tzinfo=UTC).timestamp()
        lives = slurm.may_live(_number(record), since)
        return None if lives and _number(record) == _number(self.record) else lives

    def _age(self, touched: float) -> float:
        """Seconds since a time, both by the clock of the file system."""
        with tempfile.TemporaryFile(dir=self.folder) as now:
            return os.fstat(now.fileno()).st_mtime - touched

    def _owners(self) -> dict[Path, Record | None]:
        paths = sorted(path for path in self.folder.glob(f"{NAME}.*") if path.suffix[1:].isdecimal())
        return {path: _read(path) for path in paths}

    def _live(self) -> None:
        while not self._left.wait(BEAT):
            try:
                os.utime(self.file)
            except FileNotFoundError:
                return
            except OSError as error:
                log.debug("%s: %s", self.file, error)          # perhaps it can be touched the next time


def this_process() -> Record:
    """What others know it by."""
    return {"host": socket.gethostname(), "system": system(), "pid": os.getpid(), "job": _job(),
            "cluster": os.environ.get("SLURM_CLUSTER_NAME"), "started": _started(os.getpid()),
            "since": datetime.now(UTC).strftime(SINCE)}


def describe(record: Record | None) -> str:
    if record is None:
        return "a process that has just come, or whose record was lost"
    job = f" of job {record['job']}" if record["job"] else ""
    return f"process {record['pid']}{job} on {record['host']}, since {record['since']}"


def _read(path: Path) -> Record | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _own(path: Path) -> bool:
    """Whether a file is of this user."""
    try:
        return path.stat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _touched(path: Path) -> float:
    """0, long ago, for a file that is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _job() -> str | None:
    """The job of a scheduler, and which start of it this is."""
    job, restart = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT")
    return f"{job}, restart {restart}" if job and restart else job


def _number(record: Record) -> str | None:
    return record["job"] and record["job"].partition(",")[0]


def system() -> str:
    """Where a number names the same process: a machine since its start, less what a container hides of it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, in the system's own unit: numbers of processes are used again. '' for a dead one that nobody has
    asked after, None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def lives(record: Record) -> bool:
    """Of a process of this `system`."""
    try:
        os.kill(record["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:              # another user's
        pass
    return _started(record["pid"]) in (None, record["started"])
