"""A profile held against the machines that it is about: a cluster with SLURM, or this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from restok.config.load import ConfigError
from restok.errors import RestokError
from restok.experiments import requests
from restok.slurm import SlurmError
from restok.stages.doctor import machine
from restok.stages.doctor.cluster import COMMANDS, Cluster, read_cluster
from restok.stages.doctor.granted import granted
from restok.stages.doctor.plan import Plan, plan
from restok.stages.doctor.profile import Profile, names, read_profile
from restok.stages.doctor.things import Finding

POLLED = 200                            # seconds: Snakemake asks for its jobs every 180 s at last, and an answer takes some
# What counts instead of the defaults that steps replace.
OWN = {"slurm_partition": "site.cpu_partition and site.gpu_partition", "gpu_model": "site.gpu_model", "runtime": "site.longest"}


def examine_site(name: str, params: Path, run: str) -> list[Finding]:
    """Of the profile that `snakemake --profile NAME` takes, for all jobs of a run and its rows. Nothing is submitted."""
    try:
        if Path("params", f"{run}.yaml").resolve() != params.resolve() or not Path("Snakefile").exists():
            raise ConfigError(f"--profile: the jobs are those of the workflow, which reads params/{run}.yaml; call it at the "
                              "root of the clone, with a file of its folder params")
        profile = read_profile(name)
        if profile.tree.get("executor") == "slurm":
            return list(_cluster(name, profile, run))
        return list(_machine(plan(name, run), profile))
    except RestokError as error:
        return [Finding("profile", "fault", line) for line in str(error).splitlines()]


def _cluster(name: str, profile: Profile, run: str) -> Iterator[Finding]:
    # The executor of SLURM asks about accounts in any case.
    accounts = "sacctmgr" if "slurm_account" in profile.pairs("default-resources") else "sacct"
    if missing := [command for command in (*COMMANDS, accounts) if shutil.which(command) is None]:
        yield Finding("SLURM", "fault", f"no {', '.join(missing)} in PATH; call it on a login node of the cluster, after what "
                      "loads SLURM there, such as `module load slurm`")
        return
    try:
        cluster = read_cluster()
        yield Finding("SLURM", "ok", f"{cluster.settings.get('SLURM_VERSION', '')}: {len(cluster.nodes)} nodes, partitions "
                      f"{', '.join(cluster.partitions)}")
        planned = plan(name, run)
        yield from _names(planned, profile)
        yield from granted(planned.requests, cluster, profile)
        most, limit = max(request.gpus for request in planned.requests), planned.limits.get("gpu")
        if isinstance(limit, int) and limit < most:
            yield Finding("profile", "fault", f"{profile.file}: resources: gpu: {limit}, which cuts what each job gets, but "
                          f"one takes {most}; take {most} or more, or leave it out")
    except SlurmError as error:
        remedy = "" if ";" in str(error) else "; call it where SLURM answers, such as on a login node"
        yield Finding("SLURM", "fault", f"{error}{remedy}")
        return
    except RestokError as error:
        yield Finding("profile", "fault", str(error))
        return
    yield _account(planned, cluster)
    yield _ends(planned, cluster, profile)
    yield _queued_again(planned, cluster, profile)
    yield _scratch(profile)
    yield machine.commands("restok", "snakemake")
    yield from machine.folders(cluster)


def _machine(planned: Plan, profile: Profile) -> Iterator[Finding]:
    yield from _names(planned, profile)
    if planned.executor != "local":
        yield Finding("executor", "not known", f"{planned.executor}: jobs of SLURM and of this machine alone are looked at")
        return
    yield machine.gpus(planned, profile)
    yield machine.commands("restok", "snakemake", *(["torchrun"] if profile.site.launcher == "torchrun" else []))


def _names(planned: Plan, profile: Profile) -> Iterator[Finding]:
    """What Snakemake passes over in silence."""
    for fault in names(profile, planned.rules, planned.resources, planned.scatter):
        yield Finding("profile", "fault", fault)
    for name in profile.pairs("default-resources"):
        if name in requests.names("data"):
            yield Finding("profile", "fault", f"{profile.file}: default-resources: {name}: never counts, since each step says "
                          f"its own; write {OWN.get(name, 'set-resources')}")


def _account(planned: Plan, cluster: Cluster) -> Finding:
    """That it is accepted, sbatch has said, where SLURM keeps accounts."""
    accounts = {account for request in planned.requests if (account := request.option("-A"))}
    named = ", ".join(sorted(accounts)) or "none is named"
    if not cluster.keeps_accounts:
        return Finding("account", "not known" if accounts else "ok", f"{named}; this SLURM keeps no accounts")
    return Finding("account", "ok", named)


def _ends(planned: Plan, cluster: Cluster, profile: Profile) -> Finding:
    """Whether Snakemake hears of the end of its jobs: it asks as the executor's `check_active_jobs` does."""
    age = int(cluster.settings.get("MinJobAge", "0").split()[0])
    by, sacct = planned.settings["status_command"], shutil.which("sacct") is not None
    kept = sacct and cluster.keeps_accounts
    key = f"{profile.file}: slurm-status-command"
    if by == "squeue" and age < 3 * planned.settings["init_seconds_before_status_checks"]:
        by = "sacct"                                       # where there is one
    if by == "sacct" and sacct:
        if kept:
            return Finding("ends of jobs", "ok", "asked of sacct")
        return Finding("ends of jobs", "fault", f"{key}: Snakemake would ask sacct, but this SLURM keeps no accounts; write "
                       f"squeue (MinJobAge of SLURM is {age} s, and should be {POLLED} at least)")
    if age < POLLED:
        remedy = "write sacct" if kept else f"ask those who run the cluster for {POLLED} s at least"
        return Finding("ends of jobs", "fault", f"{key}: squeue forgets a job {age} s after its end (MinJobAge of SLURM), but "
                       f"Snakemake may ask only every 180 s; {remedy}")
    return Finding("ends of jobs", "ok", f"asked of squeue, which knows a job for {age} s after its end")


def _queued_again(planned: Plan, cluster: Cluster, profile: Profile) -> Finding:
    """sbatch's --requeue is stronger than SLURM's JobRequeue."""
    said = planned.settings
    if said["no_requeue"] or not (said["requeue"] or cluster.settings.get("JobRequeue") != "0"):
        return Finding("queued again", "fault", f"{profile.file}: slurm-requeue: a training would not be queued again when its "
                       "time is over, or other jobs come first; write slurm-requeue: true, and no slurm-no-requeue")
    asked = {name for request in planned.requests for name in (request.option("-p") or cluster.default or "").split(",")}
    if cancels := sorted(name for name in asked & set(cluster.partitions)
                         if "CANCEL" in cluster.partitions[name].said.get("PreemptMode", "")):
        return Finding("queued again", "not known", f"partition {', '.join(cancels)} ends jobs for good when others come "
                       "first (PreemptMode=CANCEL), but trainings that can save within its GraceTime. Snakemake waits on for a "
                       "job that squeue calls PREEMPTED: press Ctrl-C and give the command again, or name another partition")
    return Finding("queued again", "ok", "when a training's time is over, other jobs come first, or a node fails")


def _scratch(profile: Profile) -> Finding:
    folder = profile.pairs("default-resources").get("tmpdir")
    if folder is None:
        return Finding("scratch", "not known", "not said; default-resources: tmpdir names it, else jobs take $TMPDIR, or /tmp")
    return Finding("scratch", "ok", f"{folder} of each node")
