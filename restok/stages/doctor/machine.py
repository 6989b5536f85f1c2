"""What jobs find where they run: commands, folders, and the GPUs of this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from restok.stages.doctor.cluster import Cluster
from restok.stages.doctor.plan import Plan
from restok.stages.doctor.profile import Profile
from restok.stages.doctor.things import Finding

# File systems that machines share, by how their names begin; of any other nothing is known.
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "panfs", "orangefs", "pvfs2", "afs", "cifs", "smb", "9p",
          "fuse.glusterfs")


def commands(*names: str) -> Finding:
    """What a job's shell finds: jobs inherit the environment that Snakemake is called in."""
    done = subprocess.run(["bash", "-c", f"command -v {' '.join(names)}"], capture_output=True, text=True, check=False)
    found, own = {Path(line).name: Path(line) for line in done.stdout.splitlines()}, Path(sys.executable).parent.resolve()
    if missing := [name for name in names if name not in found]:
        return Finding("commands", "fault", f"{', '.join(missing)}: not found by a shell, as jobs start one; activate the "
                       "environment of restok before you call Snakemake")
    if strange := [str(path) for path in found.values() if own not in (path.parent.resolve(), path.resolve().parent)]:
        return Finding("commands", "fault", f"{', '.join(strange)}: of another environment than this restok, {own}; activate "
                       "one of them alone")
    return Finding("commands", "ok", f"{', '.join(names)} in {own}, if nodes see it, too")


def folders(cluster: Cluster) -> Iterator[Finding]:
    """What jobs read and write must be the same on all nodes; the kind of a file system tells, or does not."""
    here = {node.host for node in cluster.nodes} == {os.uname().nodename}
    for what, folder in (("clone", "."), ("results", "results"), ("runs", "runs"), ("Python", sys.prefix)):
        place = Path(folder).resolve()
        kind = _file_system(place)
        if here:
            yield Finding(f"shared: {what}", "ok", "all nodes are this machine")
        elif kind.startswith(SHARED):
            yield Finding(f"shared: {what}", "ok", f"{place} lies on {kind}")
        else:
            yield Finding(f"shared: {what}", "not known", f"{place} lies on {kind}; all nodes must see the same there")


def _file_system(place: Path) -> str:
    """Its kind, such as 'nfs4': that of the longest mount point above it, and of several there the last."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8", errors="replace").splitlines()]
    except OSError:
        mounts = []
    above = [(len(point), number, kind) for number, (point, kind) in enumerate(mounts) if place.is_relative_to(point)]
    return max(above)[2] if above else "a file system without a name"


def gpus(planned: Plan, profile: Profile) -> Finding:
    """Of a profile whose jobs are processes of this machine."""
    import torch

    here, limit = torch.cuda.device_count(), planned.limits.get("gpu")
    largest = max(planned.requests, key=lambda request: request.gpus)
    most, rule = largest.gpus, largest.rules[0]
    if not most:
        return Finding("GPUs", "ok", "no job takes one")
    if most > here:
        return Finding("GPUs", "fault", f"{profile.file}: site.tasks_per_node: {rule} takes {most} GPUs, but here are {here}; "
                       "call it on the machine that will train, or take as many as there are")
    if not isinstance(limit, int) or not most <= limit <= here:
        said = "not said" if limit is None else f"{limit}, but {rule} takes {most} of {here}"
        return Finding("GPUs", "fault", f"{profile.file}: resources: gpu: {said}; write resources: [gpu={here}], the GPUs that "
                       "jobs share")
    return Finding("GPUs", "ok", f"{limit} of {here} are taken, {most} by {rule}")
