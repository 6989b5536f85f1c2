"""Facts of the making: by which code, packages and machine something was made, when, and what it cost.

They stand beside what an artifact is known by, and are never part of it: what is made of the same is the same, whenever and by
whomever it was made.
"""

import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent.parent
LIBRARIES = ("torch", "torchvision", "torchcodec", "torch-fidelity", "numpy", "scipy", "scikit-learn", "timm", "lpips",
             "pillow", "safetensors", "pyarrow", "pandas", "matplotlib")     # those that can change a result
TIMES = "started", "finished", "seconds", "calls", "unknown"      # of a making
MEMORY = "memory_gb", "gpu_memory_gb"        # the most that one process had; what else it says is where it ran
Making = dict[str, Any]


class _Call(NamedTuple):
    """A call of a verb: when it began, and with which code."""

    started: datetime
    clock: float
    code: dict[str, Any]


_call: _Call | None = None


@contextmanager
def making() -> Iterator[None]:
    """What is made in the block began with it, of the code as it is now: hours later the checkout may be another."""
    global _call
    before, _call = _call, _Call(datetime.now(UTC), perf_counter(), code())
    try:
        yield
    finally:
        _call = before


def made() -> Making:
    """The facts of this call, up to now. Outside a call of a verb, when it began is unknown: None."""
    torch = sys.modules.get("torch")
    started, built = _call and _call.started, {"torch": str(torch.__version__)} if torch else {}     # and for what built
    return {
        **(_call.code if _call else code()), "versions": versions() | built, "device": _device(torch),
        "processor": _processor(torch), "threads": torch and torch.get_num_threads(), "processes": _processes(torch),
        "host": socket.gethostname(), "job": os.environ.get("SLURM_JOB_ID"),
        "memory_gb": round(peak_memory() / 1e9, 3), "gpu_memory_gb": _gpu_memory(torch),
        "started": started and _text(started), "finished": _text(datetime.now(UTC)),
        "seconds": round(perf_counter() - _call.clock, 2) if _call else None, "calls": 1, "unknown": 0}


def together(makings: Sequence[Making]) -> list[Making]:
    """Those that ran in the same place become one, with the sum of their seconds, in the order of their first."""
    found: list[Making] = []
    for one in makings:
        place = _place(one)
        for at, other in enumerate(found):
            if place == _place(other):
                found[at] = place | {key: _first(max, other, one, key) for key in MEMORY if key in one} | {
                    "started": _first(min, other, one, "started"), "finished": _first(max, other, one, "finished"),
                    "seconds": _first(lambda pair: round(sum(pair), 2), other, one, "seconds"),
                    "calls": other["calls"] + one["calls"], "unknown": other["unknown"] + one["unknown"]}
                break
        else:
            found.append(dict(one))
    return found


def _place(one: Making) -> Making:
    return {key: value for key, value in one.items() if key not in (*TIMES, *MEMORY)}


def _first(take: Any, one: Making, other: Making, key: str) -> Any:
    """Of both, where both are known."""
    return None if None in (pair := (one[key], other.get(key))) else take(pair)


def peak_memory(forget: bool = False) -> int:
    """The most memory of the machine that this process has had, in bytes; from now on, after `forget`. Linux's ru_maxrss starts
    at the parent's own peak and cannot be reset, so it is read elsewhere there."""
    process = Path("/proc/self")
    if not process.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if forget:
        (process / "clear_refs").write_text("5", "utf-8")       # proc(5): the peak becomes what is in use
    return 1024 * int((process / "status").read_text("utf-8").partition("VmHWM:")[2].split()[0])


def _gpu_memory(torch: Any) -> float | None:
    return round(torch.cuda.max_memory_allocated() / 1e9, 3) if torch and torch.cuda.is_initialized() else None


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:     # not every one is needed everywhere
            pass
    return found


@cache
def code(package: Path = PACKAGE) -> dict[str, Any]:
    """The version of the package, a sha256 over its source, and the commit of the checkout with what was changed since in the
    package; None where it was installed without one, or git does not answer. Settings are no part of it: results name them."""
    digest = sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    try:
        number = version("restok")
    except PackageNotFoundError:         # a checkout that was not installed
        number = None
    commit, changed = _checkout(package)
    return {"restok": number, "source": digest.hexdigest(), "commit": commit, "changed": changed}


def _checkout(package: Path) -> tuple[str | None, list[str] | None]:
    if not (package.parent / ".git").exists():       # of a package among others, git would tell of a checkout around them
        return None, None
    command = ["git", "--no-optional-locks", "-c", "core.quotePath=false", "status", "--porcelain=v2", "--branch", "--",
               package.name]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}    # as hooks set them
    try:
        done = subprocess.run(command, cwd=package.parent, env=plain, capture_output=True, text=True, timeout=30, check=True,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None, None
    commit, changed = None, []
    for line in done.stdout.splitlines():
        if line.startswith("# branch.oid "):
            commit = line.split()[2]
        elif not line.startswith("#"):
            fields = {"1": 8, "2": 9, "u": 10}.get(line[0], 1)               # before the name, as git's manual has them
            changed.append(line.split(" ", fields)[-1].partition("\t")[0])
    return (None, None) if commit in (None, "(initial)") else (commit, changed)


def _device(torch: Any) -> str:
    """The GPU that this process took, else the CPU."""
    return torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else "cpu"


def _processes(torch: Any) -> int:
    group = torch and torch.distributed
    return group.get_world_size() if group and group.is_available() and group.is_initialized() else 1


def _processor(torch: Any) -> str:
    """Its name, and which of its instructions torch takes: they decide of the last digits."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text("utf-8").splitlines() if about.exists() else ()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), None)
    name = name or platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}" if torch else name


def _text(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def commit_of(making: Mapping[str, Any]) -> str:
    """'1a2b3c4', with + where the package had been changed since; else the version and the source."""
    if making["commit"]:
        return making["commit"][:7] + "+" * bool(making["changed"])
    return f"{making['restok'] or 'restok'} source {making['source'][:7]}"


def seconds_of(makings: Sequence[Mapping[str, Any]]) -> float | None:
    """The time of one process times their number, over all calls; None where that of one is unknown."""
    if not makings or None in [one["seconds"] for one in makings]:
        return None
    return sum(one["seconds"] * one["processes"] for one in makings)


def cost_of(makings: Sequence[Mapping[str, Any]]) -> str:
    """'35 s, cpu' or 'at least 812 h, 8 x NVIDIA H100': the time of all processes, over all calls, and where it went."""
    devices = ", ".join(dict.fromkeys(f"{one['processes']} x {one['device']}" if one["processes"] > 1 else one["device"]
                                      for one in makings))
    seconds = seconds_of(makings)
    if seconds is None:
        return f"time unknown{devices and f', {devices}'}"
    return f"{'at least ' * any(one['unknown'] for one in makings)}{time_of(seconds)}, {devices}"


def time_of(seconds: float) -> str:
    """'35 s', '2.1 min', '812 h'."""
    size, unit = next((size, unit) for size, unit in ((3600, "h"), (60, "min"), (0, "s")) if seconds >= size)
    return f"{max(seconds, 0.1) / (size or 1):.3g} {unit}"
