"""What a run would ask of a machine: the plan of Snakemake itself, with the profile's own settings."""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from restok.errors import RestokError
from restok.files import read_json

SECONDS = 600                           # for all rows of experiments.tsv it takes about five


class PlanError(RestokError):
    """Snakemake makes no plan of the run, and says why."""


class Request(NamedTuple):
    """What jobs ask for that ask for the same."""

    rules: tuple[str, ...]
    group: str | None                   # of jobs that are submitted as one
    threads: int                        # of a process
    asks: dict[str, int | str]          # resources, by Snakemake's names
    call: tuple[str, ...] | None        # sbatch, with all its options; None: not for SLURM, or see `error`
    error: str | None                   # why Snakemake would not submit it
    varies: bool = False                # in its minutes: these are the most

    @property
    def gpus(self) -> int:
        return int(self.asks.get("gpu", 0))

    @property
    def nodes(self) -> int:
        return int(self.asks.get("nodes", 1))

    @property
    def cpus(self) -> int:
        """On one node."""
        return self.threads * int(self.asks.get("tasks_per_node", 1))

    @property
    def memory(self) -> int:
        """MB on one node."""
        return int(self.asks.get("mem_mb", 0))

    @property
    def minutes(self) -> int:
        return int(self.asks.get("runtime", 0))

    def option(self, name: str) -> str | None:
        """A word of the call, such as that after -p."""
        call = self.call or ()
        return call[call.index(name) + 1] if name in call else None

    def __str__(self) -> str:
        model = f" {self.asks['gpu_model']}" if self.asks.get("gpu_model") else ""
        gpus = f"{self.gpus} GPU{'s' * (self.gpus > 1)}{model}, " if self.gpus else ""
        cpus = f"{self.cpus * self.nodes} CPU{'s' * (self.cpus * self.nodes > 1)}"
        on = f" on each of {self.nodes} nodes" if self.nodes > 1 else ""
        time = f"{self.minutes / 60:.3g} h" if self.minutes >= 60 else f"{self.minutes} min"
        time = f", {'up to ' * self.varies}{time}" if self.minutes else ""
        where = f" in partition {self.option('-p')}" if self.option("-p") else ""
        return f"{gpus}{cpus}, {self.memory / 1000:,.3g} GB{on}{time}{where}"


class Plan(NamedTuple):
    executor: str
    settings: dict[str, Any]            # of the executor
    limits: dict[str, int | str]        # `resources` of the profile
    rules: list[str]
    resources: list[str]                # that any rule asks for
    scatter: list[str]
    requests: list[Request]


def plan(profile: str, run: str) -> Plan:
    """Of all jobs that a run and its rows take, as if nothing of it stood. Raises PlanError."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "plan.json")
        words = ["--profile", profile, "--config", f"run={run}", "--", f"reports/{run}/index.html", "ablations"]
        try:
            done = subprocess.run([sys.executable, "-m", "restok.stages.doctor.submissions", out, *words], timeout=SECONDS,
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="backslashreplace")
        except subprocess.TimeoutExpired:
            raise PlanError(f"snakemake -n --profile {profile}: not done within {SECONDS} s; call it to see why") from None
        if done.returncode or not out.exists():
            raise PlanError(f"snakemake -n --profile {profile}: {_reason(done.stdout, done.stderr)}")
        found = read_json(out)
    together: dict[str, Request] = {}
    for job in found.pop("jobs"):
        request = Request(tuple(job["rules"]), job["group"], job["threads"], job["asks"],
                          tuple(shlex.split(job["call"])) if job["call"] else None, job["error"])
        if (before := together.get(key := _alike(request))) is not None:
            more, less = sorted((before, request), key=lambda one: (one.gpus, one.cpus, one.minutes), reverse=True)
            request = more._replace(rules=tuple({*before.rules, *request.rules}),
                                    varies=before.varies or more.minutes > less.minutes)
        together[key] = request
    order = found["rules"].index
    listed = [request._replace(rules=tuple(sorted(request.rules, key=order))) for request in together.values()]
    return Plan(**found, requests=sorted(listed, key=lambda request: order(request.rules[0])))


def _alike(request: Request) -> str:
    """The same for jobs of which the longest tells enough; of groups, the largest."""
    if request.group:
        return json.dumps([request.group, sorted(request.rules), request.error])
    asks = {name: value for name, value in request.asks.items() if name not in ("runtime", "launch")}
    return json.dumps([request.threads, asks, request.option("-p"), request.option("-A"), request.error], sort_keys=True)


def _reason(said: str, errors: str) -> str:
    """The message alone: not what Snakemake says of itself, nor its options."""
    if "snakemake: error: " in errors:
        text = errors.rpartition("error: ")[2]
    elif "Traceback" in errors:                            # in reading its options
        text = errors.splitlines()[-1]
    else:
        text = said.rpartition("Building DAG of jobs...")[2].strip() or "\n".join(errors.splitlines()[-8:])
    return " ".join(text.split()) or "it ended without a word"
