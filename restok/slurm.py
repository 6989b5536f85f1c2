"""What is asked of SLURM, where there is one: whether processes of a job may live, and which jobs an earlier workflow left."""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from restok.errors import RestokError

# The names of squeue's manual. Any other, as of a federation, whose job may run on another cluster, or of a newer SLURM, says
# nothing. A job that is on its way to one of GONE is COMPLETING until its last process has ended.
MAY_LIVE = frozenset({"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "REQUEUED"})
GONE = frozenset({"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "DEADLINE", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY",
                  "PREEMPTED", "STAGE_OUT", "PENDING", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
CLOCKS = 120.0                          # seconds: a time that is written in minutes, and clocks of machines that differ
BETWEEN = "\x1f"                        # the fields of squeue: no name, folder or wildcard has this sign
RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")      # how the name of a job of Snakemake ends


class SlurmError(RestokError):
    """SLURM does not answer, or its jobs stand in the way."""


@dataclass(frozen=True)
class Job:
    """A job of a workflow. `step` is its rule and wildcards."""

    number: str
    state: str
    step: str


def may_live(job: str, since: float) -> bool | None:
    """Whether a process may live that was in a job of this user at a time `since` (seconds of the epoch, up to a minute early).
    None where SLURM cannot tell.

    A process of an earlier start of the job is gone: SLURM ends all of them before it starts a job again.
    """
    try:
        found = _squeue("%A", "%T", "%S", f"--jobs={job}", "--states=all", seconds=10)
    except SlurmError as error:
        return False if "Invalid job id specified" in str(error) else None           # some minutes after a job's end
    starts = [(state, started) for number, state, started in found if number == job]   # of an array there are more
    if any(state in MAY_LIVE and not (started.isdecimal() and since < int(started) - CLOCKS) for state, started in starts):
        return True
    return False if starts and all(state in MAY_LIVE | GONE for state, _ in starts) else None


def left_over(folder: Path) -> list[Job]:
    """This user's jobs that Snakemake submitted from `folder`, and that wait or run. Raises SlurmError where SLURM does not
    answer."""
    here = os.path.realpath(folder)
    jobs = _squeue("%i", "%T", "%j", "%Z", "%k", "--me", "--all", seconds=60)          # --all: in hidden partitions, too
    return [Job(number, state, _step(comment) or name) for number, state, name, place, comment in jobs
            if os.path.realpath(place) == here and (RUN.search(name) or _step(comment))]


def require_none_left_over(folder: Path) -> None:
    """Raises SlurmError, which names them, where jobs of an earlier workflow in `folder` wait or run: a second job that makes
    the same would fail, or cost as much again."""
    if jobs := left_over(folder):
        named = "".join(f"\n    {job.number}  {job.state}  {job.step}" for job in jobs)
        numbers = " ".join(dict.fromkeys(job.number.partition("_")[0] for job in jobs))
        raise SlurmError(f"{folder}: jobs that an earlier start of the workflow submitted here still wait or run, so nothing "
                         f"was submitted:{named}\nWait until they have ended, and give the same command again: it goes on from "
                         f"what they made. Or stop them first (a training saves its state):\n    scancel {numbers}")


def unrecorded(results: list[str]) -> str:
    """What is said of results that are there, though Snakemake did not write down which settings they were made with."""
    return ("Snakemake has no record of the settings of these results, since it was killed before they were made. It would not "
            f"notice that these settings change:\n    {shlex.join(results)}\nTo have them recorded, give the same command once "
            "with --forcerun and this line, before --profile. Nothing is computed twice: each step finds its work in runs/.")


def _step(comment: str) -> str | None:
    """'train_tokenizer (demo_1M)' of 'rule_train_tokenizer_wildcards_demo_1M'; None of any other comment."""
    if not comment.startswith("rule_"):
        return None
    rule, _, wildcards = comment.removeprefix("rule_").partition("_wildcards_")
    return f"{rule} ({wildcards})" if wildcards else rule


def _squeue(*words: str, seconds: float) -> list[list[str]]:
    """The fields of each job; words with % name the fields, others are options. Raises SlurmError where there is no answer.

    What a user has preset for squeue does not count. Times are seconds of the epoch.
    """
    fields = [word for word in words if word.startswith("%")]
    options = ["--noheader", f"--format={BETWEEN.join(fields)}", *(word for word in words if word not in fields)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SQUEUE_")}
    try:
        answer = ask("squeue", *options, seconds=seconds, environment=kept | {"SLURM_TIME_FORMAT": "%s"})
    except SlurmError as error:
        remedy = "" if ";" in str(error) else "; try again once SLURM answers"
        raise SlurmError(f"{error}{remedy}") from None
    rows = [line.split(BETWEEN) for line in answer.split("\n")]
    return [row for row in rows if len(row) == len(fields)]


def ask(*command: str, seconds: float = 60, environment: Mapping[str, str] | None = None) -> str:
    """What a command of SLURM says. Raises SlurmError: it cannot be called, does not answer, or refuses, in its own words."""
    with TemporaryFile() as answer, TemporaryFile() as errors:         # a pipe may stay open after what was killed
        try:
            done = subprocess.run(command, env=environment, timeout=seconds, stdin=subprocess.DEVNULL, stdout=answer,
                                  stderr=errors)
        except OSError as error:
            raise SlurmError(f"{command[0]}: cannot be called ({error.strerror}); SLURM's commands must be in PATH") from None
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{command[0]}: no answer within {seconds:.0f} s; try again once SLURM answers") from None
        said = []
        for file in (answer, errors):
            file.seek(0)
            said.append(os.fsdecode(file.read()))
    if done.returncode:
        lines = [re.sub(r"^(\w+: )?(error: |fatal: |allocation failure: )", "", line) for line in "".join(said).splitlines()]
        raise SlurmError(f"{command[0]}: {', '.join(dict.fromkeys(filter(None, lines))) or f'exit code {done.returncode}'}")
    return said[0]
