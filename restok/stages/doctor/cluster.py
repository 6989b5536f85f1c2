"""A cluster, as SLURM tells of it: its settings, partitions and nodes."""

import os
import re
from typing import NamedTuple

from restok.slurm import ask

COMMANDS = "sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo"      # that Snakemake and the workflow call
PAIR = re.compile(r"(?:^|\s)([A-Za-z]\w*)=(\S*)")
TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)$")
GPUS = re.compile(r"(?:^|,)gpu(?::([\w.-]+?))?:(\d+)(?=[,(]|$)")
# Of nodes that start no jobs; one that sleeps (POWERED_DOWN) is woken.
AWAY = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "INVAL", "FUTURE", "NOT_RESPONDING", "MAINT"}


class Partition(NamedTuple):
    name: str
    state: str
    minutes: int | None                 # that a job may ask for; None: without limit
    nodes: int | None                   # that a job may take
    said: dict[str, str]


class Node(NamedTuple):
    name: str
    host: str
    cpus: int
    memory: int                         # MB
    gpus: dict[str, int]                # of each type; '' where the nodes say none
    partitions: frozenset[str]
    here: bool                          # whether jobs are started on it


class Cluster(NamedTuple):
    settings: dict[str, str]
    partitions: dict[str, Partition]
    nodes: list[Node]

    def of(self, partition: str) -> list[Node]:
        return [node for node in self.nodes if partition in node.partitions]

    @property
    def keeps_accounts(self) -> bool:
        return not self.settings.get("AccountingStorageType", "").endswith("/none")

    @property
    def default(self) -> str | None:
        return next((each.name for each in self.partitions.values() if each.said.get("Default") == "YES"), None)


def read_cluster() -> Cluster:
    """Asks SLURM. Raises SlurmError."""
    settings = dict(line.partition("=")[::2] for line in ask_slurm("scontrol", "show", "config").splitlines() if " = " in line)
    partitions = map(_partition, ask_slurm("scontrol", "--all", "--oneliner", "show", "partition").splitlines())
    nodes = map(_node, ask_slurm("scontrol", "--all", "--oneliner", "show", "node").splitlines())
    return Cluster({key.strip(): value.strip() for key, value in settings.items()},
                   {each.name: each for each in partitions if each}, [each for each in nodes if each])


def _partition(line: str) -> Partition | None:
    said = dict(PAIR.findall(line))
    if "PartitionName" not in said:
        return None
    most = said.get("MaxNodes", "")
    return Partition(said["PartitionName"], said.get("State", "UP"), minutes(said.get("MaxTime", "")),
                     int(most) if most.isdecimal() else None, said)


def _node(line: str) -> Node | None:
    said = dict(PAIR.findall(line))
    if "NodeName" not in said:
        return None
    gpus: dict[str, int] = {}
    for kind, count in GPUS.findall(said.get("Gres", "")):
        gpus[kind] = gpus.get(kind, 0) + int(count)
    cpus, memory, kept = (int(said.get(name) or 0) for name in ("CPUTot", "RealMemory", "MemSpecLimit"))
    return Node(said["NodeName"], said.get("NodeHostName", ""), int(said.get("CPUEfctv") or cpus), memory - kept, gpus,
                frozenset(said.get("Partitions", "").split(",")), not AWAY & set(re.findall(r"\w+", said.get("State", ""))))


def minutes(text: str) -> int | None:
    """Of '2-00:00:00'; None of UNLIMITED."""
    found = TIME.match(text)
    if found is None:
        return None
    days, hours, rest, _ = (int(part or 0) for part in found.groups())
    return (24 * days + hours) * 60 + rest


def ask_slurm(*command: str) -> str:
    """As Snakemake's executor asks: within a job, it would else give that job's settings to its own jobs. Raises SlurmError."""
    job = "SLURM_JOB_ID" in os.environ
    return ask(*command, environment={key: it for key, it in os.environ.items() if not (job and key.startswith("SLURM_"))})
