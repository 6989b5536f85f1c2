"""What each job of a run asks of SLURM, held against what the cluster has and grants."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from restok.slurm import SlurmError
from restok.stages.doctor.cluster import Cluster, Node, Partition, ask_slurm
from restok.stages.doctor.plan import Request
from restok.stages.doctor.profile import Profile
from restok.stages.doctor.things import Finding

UNNAMED = ""                            # the type of GPUs of which nodes say none
# In SLURM's words that it does not answer; all else is a refusal.
SILENT = re.compile("no answer within|cannot be called|Unable to contact slurm|Socket timed out|configuration source")


class Fault(NamedTuple):
    """`what` opens with the key of the profile that says it."""

    what: str
    remedy: str


def granted(requests: list[Request], cluster: Cluster, profile: Profile) -> Iterator[Finding]:
    """A finding each; jobs with the same fault share one."""
    faults: dict[tuple[Fault, str], list[str]] = {}
    for request in requests:
        refused = _refusal(request)
        found = list(_faults(request, refused is not None, cluster, profile))
        if refused and not found:
            found = [_unexplained(request, refused, profile)]
        if not found:
            together = f" (group {request.group})" if request.group else ""
            yield Finding(", ".join(request.rules) + together, "ok", f"{request}: granted")
        for fault in found:
            faults.setdefault((fault, refused or ""), []).extend(request.rules)
    for (fault, refused), rules in faults.items():
        words = f" (SLURM: {refused})" if refused and refused not in fault.what else ""
        yield Finding(", ".join(dict.fromkeys(rules)), "fault", f"{profile.file}: {fault.what}{words}; {fault.remedy}")


def _refusal(request: Request) -> str | None:
    """SLURM's answer to the call that Snakemake would make, as a question. Nothing is submitted. Raises SlurmError."""
    if request.call is None:
        return " ".join((request.error or "").rstrip(". ").split())
    try:
        ask_slurm(*request.call, "--test-only", "--wrap=true")
    except SlurmError as error:
        if SILENT.search(str(error)):
            raise
        return str(error).removeprefix("sbatch: ")
    return None


def _faults(request: Request, refused: bool, cluster: Cluster, profile: Profile) -> Iterator[Fault]:
    """What is wrong with a request: also what SLURM takes, and then never starts."""
    name = request.option("-p") or cluster.default
    if name is None or request.call is None or {"cluster", "clusters", "slurm_cluster"} & set(request.asks):
        return                                             # of another cluster the answer of sbatch must do
    several = name.split(",")                              # a job starts in the one that is free first
    if unknown := [each for each in several if each not in cluster.partitions]:
        yield Fault(f"{_key(request, profile, 'slurm_partition')}: there is no partition {unknown[0]!r}",
                    f"name one of {', '.join(cluster.partitions)}")
        return
    found = [list(_in_partition(request, refused, cluster, cluster.partitions[each], profile)) for each in several]
    yield from [] if [] in found else found[0]


def _in_partition(request: Request, refused: bool, cluster: Cluster, partition: Partition, profile: Profile) -> Iterator[Fault]:
    name, where = partition.name, _key(request, profile, "slurm_partition")
    if partition.state != "UP":
        yield Fault(f"{where}: partition {name} is {partition.state}: its jobs wait",
                    "name another one, or ask those who run the cluster")
    if partition.minutes is not None and request.minutes > partition.minutes:
        yield Fault(f"{_key(request, profile, 'runtime')}: {request.minutes:,} minutes, but partition {name} gives a job "
                    f"{partition.minutes:,}: it would wait for ever", f"take {partition.minutes} or less")
    if partition.nodes is not None and request.nodes > partition.nodes:
        yield Fault(f"{_key(request, profile, 'nodes')}: {request.nodes}, but partition {name} gives a job {partition.nodes}",
                    f"take {partition.nodes} or less")
    yield from _allowed(request, partition, cluster, profile)
    nodes = cluster.of(name)
    if nodes and not any(node.here for node in nodes):
        yield Fault(f"{where}: all {len(nodes)} nodes of partition {name} are down, drained or away: its jobs wait",
                    "name another one, or ask those who run the cluster")
    spread = request.gpus > 1 and "nodes" not in request.asks         # granted on several nodes, of which Snakemake uses one
    fitting = sum(_fits(request, node) for node in nodes)
    if not (refused or spread) or fitting >= request.nodes:
        return
    if fitting:
        yield Fault(f"{_key(request, profile, 'nodes')}: {request}, but partition {name} has {fitting} such nodes",
                    f"take {fitting} or less")
    else:
        yield from _too_small(request, nodes, name, profile)


def _allowed(request: Request, partition: Partition, cluster: Cluster, profile: Profile) -> Iterator[Fault]:
    """Accounts and qualities of service that a partition takes. Who names none has one of SLURM's, where it keeps accounts."""
    name, said = partition.name, partition.said
    qos = next((word.partition("=")[2] for word in request.call or () if word.startswith("--qos=")), None)
    for kind, word, key in (("Accounts", request.option("-A"), "slurm_account"), ("Qos", qos, "qos")):
        takes, not_those = said.get(f"Allow{kind}", "ALL"), said.get(f"Deny{kind}", "")
        if takes != "ALL" and (word or not cluster.keeps_accounts) and (word or "").lower() not in takes.lower().split(","):
            yield Fault(f"{_key(request, profile, key)}: {word or 'none'}, but partition {name} takes {takes} alone",
                        f"name one of these, or another partition in {_key(request, profile, 'slurm_partition')}")
        if word and word.lower() in not_those.lower().split(","):
            yield Fault(f"{_key(request, profile, key)}: {word}, which partition {name} does not take",
                        f"name another one, or another partition in {_key(request, profile, 'slurm_partition')}")


def _gpus(request: Request, node: Node) -> int:
    """Of the type that is asked for; SLURM takes capitals for other letters."""
    model = request.asks.get("gpu_model")
    return node.gpus.get(str(model), 0) if model else sum(node.gpus.values())


def _fits(request: Request, node: Node) -> bool:
    return (node.cpus >= request.cpus and node.memory >= request.memory
            and _gpus(request, node) >= -(-request.gpus // request.nodes))


def _too_small(request: Request, nodes: list[Node], name: str, profile: Profile) -> Iterator[Fault]:
    """Why no node of a partition holds its share of a job."""
    model, share = request.asks.get("gpu_model"), -(-request.gpus // request.nodes)
    types = sorted({kind for node in nodes for kind in node.gpus if kind != UNNAMED})
    most = max((_gpus(request, node) for node in nodes), default=0)
    if request.gpus and not any(node.gpus for node in nodes):
        yield Fault(f"{_key(request, profile, 'slurm_partition')}: partition {name} has no GPUs", "name one that has")
    elif request.gpus and model and not most:
        yield Fault(f"{_key(request, profile, 'gpu_model')}: no node of partition {name} has a GPU of type {model!r}",
                    f"take {' or '.join(types) or 'null'}, as nodes call it" + ("; null takes any" if types else ""))
    elif share > most:
        yield Fault(f"{_key(request, profile, 'gpu')}: {share} GPUs on a node, but those of partition {name} have {most}",
                    f"take {most} or less")
    cpus, memory = (max((getattr(node, what) for node in nodes), default=0) for what in ("cpus", "memory"))
    if request.cpus > cpus:
        each = request.cpus // max(1, request.threads)
        said = f"{each} processes of {request.threads} CPUs" if each > 1 else f"{request.cpus} CPUs"
        yield Fault(f"{_key(request, profile, 'cpus')}: {said} on a node, but those of partition {name} have {cpus}",
                    "take less: `threads` and `data.workers` of the parameters, or set-threads")
    if request.memory > memory:
        yield Fault(f"{_key(request, profile, 'mem_mb')}: {request.memory:,} MB on a node, but those of partition {name} have "
                    f"{memory:,}", "take less, or another partition")
    if share <= most and request.cpus <= cpus and request.memory <= memory:
        yield Fault(f"{_key(request, profile, 'slurm_partition')}: no single node of partition {name} has all of {request}",
                    "name another partition")


def _unexplained(request: Request, refused: str, profile: Profile) -> Fault:
    """By the words of the refusal."""
    words = {"slurm_extra": "slurm_extra", "account": "slurm_account", "qos": "qos", "constraint": "constraint",
             "feature": "constraint", "time": "runtime", "memory": "mem_mb", "partition": "slurm_partition"}
    key = next((key for word, key in words.items() if word in refused.lower()), None)
    if key:
        return Fault(f"{_key(request, profile, key)}: refused for {request}: {refused}", "change it")
    return Fault(f"refused for {request}: {refused}", "change what `site` or `set-resources` asks for")


def _key(request: Request, profile: Profile, name: str) -> str:
    """Where a profile says a resource of a job."""
    for rule in request.rules:
        if name in profile.changed(rule):
            return f"set-resources: {rule}: {name}"
        if name == "cpus" and rule in profile.pairs("set-threads"):
            return f"set-threads: {rule}"
    if request.group and name in ("runtime", "mem_mb", "gpu", "cpus"):
        return f"group-components: {request.group}"
    if name == "qos" and "slurm-qos" in profile.tree:
        return "slurm-qos"
    shares = ("gpu", "cpus", "mem_mb") if "tasks_per_node" in request.asks else ()
    site = {"slurm_partition": "gpu_partition" if request.gpus else "cpu_partition", "gpu_model": "gpu_model",
            "runtime": "longest", "nodes": "nodes"} | dict.fromkeys(shares, "tasks_per_node")
    if name in site:
        return f"site.{site[name]}"
    return f"default-resources: {name}" if name in ("slurm_account", "qos", "constraint") else (
        "set-threads" if name == "cpus" else f"set-resources: {name}")
