"""Processes and devices: how many there are, which one this is, and what they tell each other. `torchrun` starts them, or
SLURM's `srun`."""

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from restok import signals
from restok.errors import RestokError
from restok.files import making
from restok.parts import WHOLE, Shard

T = TypeVar("T")
log = logging.getLogger("restok")
_cpus: dist.ProcessGroup | None = None   # of the CPUs, where the processes talk by their GPUs


class Process(NamedTuple):
    """One of `count` that do the same work; `local` counts those of one machine; `meeting` is where they find each other."""

    rank: int
    local: int
    count: int
    meeting: str


def launched(environment: Mapping[str, str]) -> Process | None:
    """The process that torchrun or a step of SLURM started with these variables; None for one that stands alone, as in an
    sbatch script or the shell of salloc, where SLURM_NTASKS counts tasks of which none was started."""
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        return Process(*(int(environment[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")), "env://")
    count = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    # A job that was submitted within a step inherits that step's variables, but has its own SLURM_NTASKS.
    if count == 1 or int(environment.get("SLURM_NTASKS", count)) != count:
        return None
    host = environment.get("MASTER_ADDR") or first_host(
        environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"])
    try:
        socket.getaddrinfo(host, None)
    except OSError:                      # SLURM's names of nodes need not be those of the network
        host = environment["SLURM_LAUNCH_NODE_IPADDR"]
    number = 101 * int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])
    port = environment.get("MASTER_PORT") or 10_000 + number % 20_000        # below those that the system hands out
    return Process(int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"]), count, f"tcp://{host}:{port}")


def first_host(nodes: str) -> str:
    """'gpu[003-010,12],cpu1' as 'gpu003'."""
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", re.match(r"([^,[]|\[[^]]*\])+", nodes)[0])


@contextmanager
def processes() -> Iterator[None]:
    """The processes that were started together join one group meanwhile, each on its own device: enter before anything is
    loaded.

    After an exception the group is left as it is: taking it apart would wait for the others, which wait for this one.
    """
    global _cpus
    process, gpus = launched(os.environ), torch.cuda.device_count()
    if process is not None:
        if gpus:
            torch.cuda.set_device(process.local % gpus)      # a task may see its own alone
        dist.init_process_group("nccl" if gpus else "gloo", process.meeting, rank=process.rank, world_size=process.count)
        _cpus = dist.new_group(backend="gloo") if gpus else None
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def device() -> torch.device:
    """Where this process computes: its GPU, or the CPU. Raises RestokError for one of several that did not join a group
    (`processes`): each would do the whole work."""
    process = launched(os.environ)
    if process is not None and process.count > 1 and not dist.is_initialized():
        raise RestokError(f"{process.count} processes were started together, but this step works in one: start one (srun "
                          "--ntasks=1)")
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def peak_memory(on: torch.device, forget: bool = False) -> int:
    """The most memory that this process has had, of its GPU or else of the machine, in bytes; from now on, after `forget`."""
    if on.type != "cuda":
        return making.peak_memory(forget)
    if forget:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def use_threads(count: int) -> None:
    """What torch computes on the CPU from here on takes so many threads, whatever OMP_NUM_THREADS and the machine say: they
    decide how sums are split, and with that the last digits of a result."""
    torch.set_num_threads(count)


def own_share() -> Shard:
    """What of the work is this process's."""
    return Shard(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else WHOLE


def is_first() -> bool:
    return own_share().part == 0


def gathered(value: T) -> list[T]:
    """The value of every process, in their order, on every process."""
    values = [value] * own_share().parts
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, as a new tensor."""
    total = tensor.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def leave_together() -> None:
    """Several processes answer a signal between two steps, all of them (`leaving`): one that left by itself would stop the
    others in the middle of theirs."""
    if own_share() != WHOLE:
        signals.defer()


def leaving() -> bool:
    """Whether a signal asked any of the processes to leave. They tell it by their CPUs, so that no GPU is waited for."""
    asked = signals.asked() is not None
    if own_share() == WHOLE:
        return asked
    told = torch.tensor(int(asked))
    dist.all_reduce(told, dist.ReduceOp.MAX, group=_cpus)
    return bool(told)


@contextmanager
def shared_errors() -> Iterator[None]:
    """At the end of the block, an error that any process met within it is raised on all, so that none waits for one that is
    gone: a process's own, else the first of the others'."""
    own = None
    try:
        yield
    except Exception as error:
        own = error
        if own_share() != WHOLE:
            log.error("%s; stops with the other processes, once they have done their share", error)
    told = own if isinstance(own, RestokError | OSError | None) else RuntimeError(f"process {own_share().part}: {own!r}")
    errors = [error for error in gathered(told) if error is not None]
    if errors:
        raise own or errors[0]


def from_first(compute: Callable[[], T]) -> T:
    """What the first process computes, or its error, on every process."""
    value = None
    with shared_errors():
        if is_first():
            value = compute()
    return gathered(value)[0]
