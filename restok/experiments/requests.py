"""What the job of each step asks of a machine, by the sizes in the parameters, and how that is said to Snakemake."""

import math
from typing import NamedTuple

from restok.config import Params, Site, Training
from restok.experiments import cost, demand

# Steps that read images run so many processes beside the model's threads.
READING = "data", "classifier", "reference", "tokenizer", "codes", "reconstruction", "panel", "doctor"
WITHOUT_MODEL = "data", "guidance", "layout"
TRAININGS = "tokenizer", "generator"                      # that several processes may share
DOCTOR_MINUTES = 30
LAUNCH = "bash workflow/scripts/tasks.sh"             # srun, and what becomes of a training that left


class Request(NamedTuple):
    """Of one job, which has `tasks` processes on each of `nodes` machines."""

    threads: int                    # of a process
    memory: int                     # MB on a machine
    minutes: int
    gpus: int                       # of all machines together
    tasks: int = 1
    nodes: int = 1


def request(step: str, params: Params, site: Site, label: str | None = None, parts: int = 1, gathers: bool = False) -> Request:
    """Of a stage, or of the doctor; `gathers`: what others made in parts, which takes neither a GPU nor threads."""
    reads, models = step in READING and not gathers, step not in WITHOUT_MODEL and not gathers
    threads = (params.threads if models else 1) + (params.data.workers if reads else 0)
    nodes, tasks = _processes(getattr(params, f"{step}_training"), site) if step in TRAININGS else (1, 1)
    memory = demand.LEAST + demand.READER * params.data.workers if step in WITHOUT_MODEL else demand.memory_mb(params)
    minutes = DOCTOR_MINUTES if step == "doctor" else cost.minutes(step, params, label, nodes * tasks, parts)
    if step in TRAININGS and site.launcher == "srun":
        minutes += math.ceil(site.warning / 60)       # else a short one would be told to save at its start, again and again
    if site.longest:
        minutes = min(minutes, site.longest)
    return Request(threads, memory * tasks, minutes, demand.gpus(params) * nodes * tasks if models else 0, tasks, nodes)


def _processes(training: Training, site: Site) -> tuple[int, int]:
    """Machines, and processes on each: as many as the site has whose micro-batches make up a batch, on as few machines as
    possible."""
    pieces = training.batch_size // (training.micro_batch or training.batch_size) or 1     # 0: the training refuses it
    fitting = [(nodes, tasks) for nodes in range(1, site.nodes + 1) for tasks in range(1, site.tasks_per_node + 1)
               if pieces % (nodes * tasks) == 0 and (nodes == 1 or tasks > 1)]
    return max(fitting, key=lambda found: (found[0] * found[1], -found[0]))


def names(step: str) -> list[str]:
    """Of the resources of a step."""
    return list(resources(step, Request(1, 1, 1, 0), Site()))


def resources(step: str, asked: Request, site: Site) -> dict[str, int | str | None]:
    """The names that Snakemake and its executor of SLURM have for it; None: not said."""
    said = {"mem_mb": asked.memory, "runtime": asked.minutes, "gpu": asked.gpus,
            "gpu_model": site.gpu_model if asked.gpus else None,
            "slurm_partition": site.gpu_partition if asked.gpus else site.cpu_partition,
            "slurm_extra": "--open-mode=append" if site.launcher == "srun" else None,       # a log outlives a restart
            "in_turn": 1}                             # those that a profile groups to one job run one after the other
    return said | (_launch(asked, site) if step in TRAININGS else {})


def _launch(asked: Request, site: Site) -> dict[str, int | str | None]:
    """Of a training, whose processes are started by the rule itself: only so does a signal of SLURM reach them. To the executor
    `mpi` says just that; '' is for one process."""
    several = asked.nodes * asked.tasks > 1
    if site.launcher != "srun":
        torchrun = f"torchrun --standalone --nproc-per-node {asked.tasks} --no-python --"
        return {"launch": torchrun if several else "", "mpi": None, "nodes": None, "tasks_per_node": None}
    model = f"{site.gpu_model}:" if site.gpu_model else ""
    per_node = f" --gpus-per-node={model}{asked.gpus // asked.nodes}" if asked.nodes > 1 and asked.gpus else ""
    return {"launch": f"{LAUNCH} --nodes={asked.nodes} --ntasks-per-node={asked.tasks} --cpus-per-task={asked.threads}",
            "mpi": "srun" if several else "", "nodes": asked.nodes, "tasks_per_node": asked.tasks if several else None,
            "slurm_extra": f"--open-mode=append --signal=USR1@{site.warning}{per_node}"}
