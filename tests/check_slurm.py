"""The workflow on a real SLURM, started here on loopback. Not one of the tests, since it takes minutes: `make slurm` calls it.

`snakemake --profile slurm` with a profile that changes the site alone: the short demo, in which one training is killed and another
is queued again, gives the reports of a local run; a training that is stopped in every way that a cluster has ends in the same
weights; and two nodes with two tasks each learn what one process does."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file
from slurm_cluster import said, start_node, wait_until

SNAKEMAKE = sys.executable, "-m", "snakemake"


def clone(folder: Path, run: str = "short", **site) -> Path:
    """The workflow without results, whose profile is that of a site of the test's own."""
    folder.mkdir(parents=True)
    for name in ("workflow", "profiles", "params", "Snakefile", "environment.yml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    profile = yaml.safe_load((ROOT / "slurm/profile.yaml").read_text())
    profile["site"] |= {"run": run, "tasks_per_node": 2, "gpu_model": "h100", "warning": 30, "longest": 30} | site
    profile |= {"slurm-init-seconds-before-status-checks": 2, "set-scatter": {"prepare": 2, "encode": 2, "evaluate": 2}}
    (folder / "slurm").mkdir()
    (folder / "slurm/profile.yaml").write_text(yaml.safe_dump(profile))
    return folder


def changed(folder: Path, source: str, name: str, **changes: str) -> None:
    """A parameter file that differs from another one in some lines, each named by its beginning."""
    text = (ROOT / f"params/{source}.yaml").read_text()
    for before, after in changes.values():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (folder / f"params/{name}.yaml").write_text(text)


def snakemake(folder: Path, *arguments: str, **more) -> subprocess.Popen:
    log = (folder / "snakemake.log").open("a")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen([*SNAKEMAKE, *arguments], cwd=folder, stdout=log, stderr=log, env=environment, **more)


def ended(process: subprocess.Popen, folder: Path, within: float = 500) -> None:
    assert process.wait(within) == 0, (folder / "snakemake.log").read_text()[-5000:]


@contextmanager
def running(folder: Path, *targets: str) -> Iterator[subprocess.Popen]:
    """`snakemake --profile slurm`, which is ended with its jobs where the test fails."""
    process = snakemake(folder, "--profile", "slurm", *targets)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def jobs(folder: Path, rule: str) -> dict[str, str]:
    """The running jobs of a rule, by what they make: 'short_750k'."""
    lines = said("squeue", "-h", "-t", "running", "-o", "%i|%Z|%k").splitlines()
    found = (line.split("|") for line in lines)
    return {what.rpartition("wildcards_")[2]: job for job, at, what in found
            if at == str(folder) and what.startswith(f"rule_{rule}_")}


def tasks(job: str) -> list[int]:
    """The processes of a job that train."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        if f"SLURM_JOB_ID={job}".encode() in environment and b"SLURM_PROCID=" in b"".join(environment) and any(
                word.startswith(b"train-") for word in words) and b"srun" not in words[0]:
            found.append(int(process.name))
    return found


def in_the_middle(folder: Path, rule: str, but: str = "") -> tuple[str, str]:
    """What a running training makes, and its job, once it has logged a row and saved no model yet."""
    found = []

    def trains() -> bool:
        for what, job in jobs(folder, rule).items():
            label = what.rpartition("_")[2]
            logs = folder.glob(f"runs/*/{rule.removeprefix('train_')}/{label}/*/log.jsonl")
            if what != but and any(log.stat().st_size for log in logs) and tasks(job):
                found[:] = what, job
        return bool(found)

    wait_until(trains, f"no {rule} runs in {folder}", within=300)
    return tuple(found)


def logged(folder: Path, rule: str, what: str) -> str:
    """What SLURM's logs say of a step, over all its jobs."""
    return "".join(path.read_text() for path in sorted(folder.glob(f"runs/slurm/rule_{rule}/{what}/*.log")))


def test_the_short_demo_gives_the_local_reports_though_a_training_is_killed_and_another_queued_again(slurm, tmp_path):
    here, there = clone(tmp_path / "local"), clone(tmp_path / "cluster")
    ended(snakemake(here, "--cores", "2", "--config", "run=short"), here)
    with running(there, "reports/index.html") as process:
        killed, job = in_the_middle(there, "train_tokenizer")
        for pid in tasks(job):
            os.kill(pid, signal.SIGKILL)
        queued, job = in_the_middle(there, "train_generator", killed)
        subprocess.run(["scontrol", "requeue", job], check=True)
        ended(process, there)
    assert "resuming after step" in logged(there, "train_generator", queued) and "DUE TO JOB REQUEUE" in logged(
        there, "train_generator", queued)
    assert len(list(there.glob(f"runs/slurm/rule_train_tokenizer/{killed}/*.log"))) == 2           # a job, and its retry
    reports = sorted(path.relative_to(here) for path in here.glob("reports/short/*"))
    assert len(reports) > 25 and reports == sorted(path.relative_to(there) for path in there.glob("reports/short/*"))
    assert [str(path) for path in reports if comparable(here / path) != comparable(there / path)] == []
    assert (there / "reports/index.html").read_bytes() == (there / "reports/short/index.html").read_bytes()
    assert not list(there.glob("runs/**/.run.owner.*")) and said("squeue", "-h", "-o", "%Z").find(str(there)) < 0


def comparable(path: Path) -> bytes:
    """Without times: when a PDF was made, and how long trainings took."""
    content = path.read_bytes()
    return re.sub(rb"/CreationDate \([^)]*\)", b"", content) if path.suffix == ".pdf" else content


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    import slurm_cluster
    if not Path("/etc/slurm/slurm.conf").exists():
        with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm") / "c"):
            yield
    else:
        yield
