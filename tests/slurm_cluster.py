"""SLURM on this machine alone: its daemons, and two nodes with two pretended GPUs each. Needs Debian's slurm-wlm and munge, and
root.
Its configuration lies in /etc/slurm, since jobs lose SLURM_CONF."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HOME = Path("/etc/slurm")
MUNGED = Path("/run/munge/munged.pid")
NAME = "restok-tests"
MARK = "# written by restok's tests\n"
DAEMONS = "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol"
NODES = "n1", "n2", "n3", "n4"         # the last two are for jobs that are pushed aside, and for failing
PORTS = range(16817, 16823)
# cred_expire is how long a requeued job waits before it starts again; preemption is by priority of partitions.
CONFIGURATION = """{mark}ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile=/run/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
SlurmdTimeout=15
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
KillWait=20
MinJobAge=3600
JobRequeue=1
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=30000 Gres=gpu:h100:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=8 RealMemory=30000 Gres=gpu:h100:2 State=UNKNOWN
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[4]} CPUs=8 RealMemory=30000 State=UNKNOWN
NodeName=n4 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[5]} CPUs=8 RealMemory=30000 State=UNKNOWN
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=1-00:00:00 State=UP PriorityTier=1
PartitionName=gpu Nodes=n1,n2 MaxTime=2-00:00:00 State=UP PriorityTier=1
PartitionName=requeued Nodes=n3 MaxTime=1:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=cancelled Nodes=n4 MaxTime=1:00:00 State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=30
PartitionName=urgent Nodes=n3,n4 MaxTime=1:00:00 State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """What is missing for a cluster here."""
    if missing := [name for name in DAEMONS if shutil.which(name) is None]:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "its daemons need root"
    there = HOME / "slurm.conf"
    if there.exists() and MARK not in there.read_text():
        return f"{there} is of another cluster"
    return None


def running() -> bool:
    """Whether a cluster of ours runs here: there can be one alone."""
    conf = HOME / "slurm.conf"
    return conf.exists() and MARK in conf.read_text() and " is UP" in said("scontrol", "ping")


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A running cluster, whose logs and state lie in a folder; all that was started is ended, by its process numbers."""
    folder.mkdir(parents=True)
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    gpus = [folder / f"gpu{number}" for number in (0, 1)]
    for gpu in gpus:
        gpu.touch()
    HOME.mkdir(exist_ok=True)
    for name, text in {
            "slurm.conf": CONFIGURATION.format(mark=MARK, name=NAME, host=host, ports=PORTS, folder=folder),
            "gres.conf": f"NodeName=n[1-2] Name=gpu Type=h100 File={folder}/gpu[0-1]\n",
            "cgroup.conf": "CgroupAutomount=no\n"}.items():
        (HOME / name).write_text(text)
    try:
        _start_munge()
        subprocess.run(["slurmctld", "-c"], check=True)
        for node in NODES:
            start_node(node)
        wait_until(lambda: set(said("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, "the nodes are not idle")
        yield
    finally:
        said("scancel", "--me")
        for pid, _ in processes(f"SLURM_CLUSTER_NAME={NAME}"):           # what a job left behind, where there are no cgroups
            os.kill(pid, signal.SIGKILL)
        for file in (*(Path(f"/run/slurmd.{node}.pid") for node in NODES), folder / "slurmctld.pid", MUNGED):
            _end(file)
        for name in ("slurm.conf", "gres.conf", "cgroup.conf"):
            (HOME / name).unlink()


def start_node(node: str) -> None:
    subprocess.run(["slurmd", "-N", node], check=True)


def processes(variable: str) -> list[tuple[int, bytes]]:
    """The numbers and words of the processes that have a variable of this value in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((int(process.name), (process / "cmdline").read_bytes()))
        except OSError:                  # gone
            continue
    return found


def daemon(node: str) -> int:
    """The process of a node's slurmd."""
    return int(Path(f"/run/slurmd.{node}.pid").read_text())


def _start_munge() -> None:
    MUNGED.parent.mkdir(exist_ok=True)
    for path in (MUNGED.parent, "/etc/munge", "/etc/munge/munge.key", "/var/lib/munge", "/var/log/munge"):
        shutil.chown(path, "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "munged", f"--pid-file={MUNGED}"], check=True)


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wait_until(true: Callable[[], bool], what: str, within: float = 60) -> None:
    until = time.monotonic() + within
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} after {within:g} s")
        time.sleep(0.2)


def _end(pid_file: Path) -> None:
    """TERM, and KILL where that was not enough."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} runs", within=30)
    except (FileNotFoundError, ProcessLookupError):
        pass
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":      # with a cluster, run a command
    import sys
    import tempfile
    if reason := why_not():
        sys.exit(reason)
    if running():
        sys.exit("a cluster of these tests runs here already; end it first")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch, cluster(Path(scratch, "slurm")):
        code = subprocess.run(sys.argv[1:], check=False).returncode
        for log in sorted(Path(scratch, "slurm").glob("*.log")) if code else ():
            print(f"== the end of {log.name}", *log.read_text(errors="replace").splitlines()[-60:], sep="\n")
        sys.exit(code)
