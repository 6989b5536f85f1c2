"""The workflow on a real SLURM, which `make slurm` starts. Not one of the tests, since it takes minutes.

`snakemake --profile slurm`, with a profile that changes the site alone: the short demo gives the reports of a local run, though
one training is killed and another one queued again; trainings that are stopped in every way that a cluster has end in the same
weights; and two nodes with two tasks each learn what four processes of one machine do."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import left
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from slurm_cluster import daemon, processes, said, start_node, wait_until

from restok.config.text import read_yaml
from restok.files import write_json

pytestmark = pytest.mark.usefixtures("slurm")
BASE = [sys.executable, "-m", "snakemake"]
LONG = {"checkpoints: {750k: 40, 1M: 80}": "checkpoints: {750k: 160, 1M: 180}", "save_every: 30": "save_every: 25"}


def clone(folder: Path, run: str, changes: dict[str, str] | None = None, **site) -> Path:
    """The workflow without results, whose profile is that of another site; `changes` of params/short.yaml make `run`."""
    folder.mkdir(parents=True)
    for name in ("workflow", "profiles", "params", "Snakefile", "run.yaml", "environment.yml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    text = (ROOT / "params/short.yaml").read_text()
    for before, after in (changes or {}).items():
        assert before in text
        text = text.replace(before, after)
    (folder / f"params/{run}.yaml").write_text(text)
    (folder / "run.yaml").write_text(f"run: {run}\nrows: main\n")
    profile = read_yaml((ROOT / "slurm/profile.yaml").read_text())
    profile["site"] |= {"tasks_per_node": 2, "gpu_model": "h100", "warning": 30, "longest": 30} | site
    profile |= {"slurm-init-seconds-before-status-checks": 1, "set-scatter": {"encode": 2}}
    (folder / "slurm").mkdir()
    (folder / "slurm/profile.yaml").write_text(json.dumps(profile))
    return folder


@contextmanager
def snakemake(folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """Runs beside the block, and must succeed; where the block fails it is stopped, with its jobs."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with (folder / "snakemake.log").open("a") as log:
        process = subprocess.Popen([*BASE, *arguments], cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        yield process
        assert process.wait(1200) == 0, told(folder)[-5000:]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def told(folder: Path) -> str:
    return (folder / "snakemake.log").read_text()


def locally(folder: Path, target: str, run: str, *arguments: str) -> None:
    with snakemake(folder, "--cores", "2", *arguments, "--config", f"run={run}", "--", target):
        pass


def jobs(folder: Path, rule: str, states: str = "running") -> dict[str, str]:
    """The jobs of a rule, each by what it makes: 'short_750k'."""
    rows = [line.split("|") for line in said("squeue", "-h", "-t", states, "-o", "%i|%Z|%k").splitlines()]
    return {what.rpartition("wildcards_")[2]: job for job, at, what in rows
            if at == str(folder) and what.startswith(f"rule_{rule}_")}


def trainers(job: str) -> list[int]:
    """The tasks of a job."""
    return [pid for pid, words in processes(f"SLURM_JOB_ID={job}")
            if b"/restok\0train-" in words and not words.startswith((b"srun", b"bash"))]


def lose_node(node: str, job: str) -> None:
    """All that runs of a job, and the node's own daemon, are gone at once: they stand still before the first one dies. An srun
    that saw its tasks die would have SLURM kill the step, which SLURM does a minute later, when the job runs again."""
    steps = said("pgrep", "--full", rf"^slurmstepd: \[{job}\.").split()
    pids = *(pid for pid, _ in processes(f"SLURM_JOB_ID={job}")), *map(int, steps), daemon(node)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def step(folder: Path, rule: str, what: str) -> int:
    """The last one that a training has logged."""
    stage, label = rule.removeprefix("train_"), what.rpartition("_")[2]
    rows = [row for log in folder.glob(f"runs/*/{stage}/main/{label}/*/log.jsonl") for row in log.read_text().splitlines()]
    return max((json.loads(row)["step"] for row in rows), default=0)


def in_the_middle(folder: Path, rule: str, but: str = "", after: int = 0) -> tuple[str, str]:
    """What a training makes, and its job, which has logged a step beyond `after` and is held still there (`go_on`)."""
    found = []

    def trains() -> bool:
        found[:] = [(what, job) for what, job in jobs(folder, rule).items()
                    if what != but and step(folder, rule, what) > after and trainers(job)]
        return bool(found)

    wait_until(trains, f"no {rule} runs in {folder}", within=400)
    for pid in trainers(found[0][1]):
        os.kill(pid, signal.SIGSTOP)
    return found[0]


def go_on(job: str, to_the_end: bool = True) -> None:
    """Let a training that is held still answer what it was told meanwhile."""
    pids = trainers(job)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not to_the_end or not any(Path(f"/proc/{pid}").exists() for pid in pids), f"{pids} are still there")


def is_told(pid: int, number: int) -> bool:
    """Whether a signal waits for a process that is held still, or has ended it: SLURM lets some processes go on first."""
    try:
        waiting = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    except FileNotFoundError:
        return True
    return bool(int(waiting, 16) >> number - 1 & 1)


def logs(folder: Path, rule: str, what: str) -> str:
    """SLURM's, of all the jobs of a step."""
    return "".join(path.read_text() for path in sorted(folder.glob(f"runs/slurm/rule_{rule}/{what}/*.log")))


def comparable(path: Path) -> bytes:
    """Without the time at which a PDF was made, and what the page says of when, where and at what cost."""
    told = re.sub(rb"/CreationDate \([^)]*\)", b"", path.read_bytes())
    return re.sub(rb"<section(>\s*<h2 id=\"cost\"| id=\"provenance\").*?</section>", b"", told, flags=re.DOTALL)


def test_the_short_demo_gives_the_local_reports_though_a_training_is_killed_and_another_queued_again(tmp_path):
    here, there = clone(tmp_path / "here", "short"), clone(tmp_path / "there", "short")
    left.made(here, *(f"results/short/{name}" for name in ("data", "classifier", "reference", "layout.npz", "*/main")))
    with snakemake(there, "--profile", "slurm", "reports/index.html"):
        killed, job = in_the_middle(there, "train_tokenizer")
        for pid in trainers(job):
            os.kill(pid, signal.SIGKILL)
        queued, job = in_the_middle(there, "train_generator")
        said("scontrol", "requeue", job)
        go_on(job)
        locally(here, "reports/short/index.html", "short")
    assert "DUE TO JOB REQUEUE" in logs(there, "train_generator", queued)
    assert len(list(there.glob(f"runs/slurm/rule_train_tokenizer/{killed}/*.log"))) == 2       # of the job, and its retry
    assert f"log: results/short/logs/main/train_tokenizer.{killed.rpartition('_')[2]}.log" in told(there)
    reports = sorted(path.relative_to(here) for path in here.glob("reports/short/**/*.*"))
    assert len(reports) > 25 and reports == sorted(path.relative_to(there) for path in there.glob("reports/short/**/*.*"))
    reports = [path for path in reports if path.parent.name != "provenance"]                    # which say when they were made
    assert [str(path) for path in reports if comparable(here / path) != comparable(there / path)] == []
    assert (there / "reports/index.html").read_bytes() == (there / "reports/short/index.html").read_bytes()
    assert not list(there.glob("runs/**/.run.owner.*"))
    assert len(list(there.glob("runs/slurm/group_search*/*.log"))) == 2                         # a job for each checkpoint


# A short test stands after each long one: the next test of a busy process is taken over by no other.

def leaves(folder: Path, task: str, *options: str, path: Path | str = "") -> str:
    """What a job says in the end whose tasks are this script."""
    (folder / "task.sh").write_text(f"#!/bin/bash\n{task}\n")
    call = f"PATH={path}:$PATH bash {ROOT}/workflow/scripts/tasks.sh {' '.join(options)} bash {folder}/task.sh 2>&1"
    said("sbatch", "--wait", "--requeue", "--mem=50", "--open-mode=append", f"--output={folder}/job.log", *options,
         f"--wrap={call}; echo left with $?")
    return (folder / "job.log").read_text()


def test_a_job_one_of_whose_tasks_failed_is_not_queued_again(tmp_path):
    """The other one is told to stop, and leaves with 75, before anything was done."""
    task = "trap 'exit 75' TERM; [ $SLURM_PROCID = 0 ] && { sleep 2; exit 1; }; for i in {1..60}; do sleep 0.5; done"
    log = leaves(tmp_path, task, "--nodes=2", "--ntasks-per-node=1")
    assert "task 1: Exited with exit code 75" in log and "queued again" not in log
    assert log.endswith("left with 129\n")


def weights(folder: Path, run: str, model: str = "tokenizer") -> dict[str, torch.Tensor]:
    return load_file(folder / f"results/{run}/{model}/main/750k/model.safetensors")


def test_a_training_ends_in_the_same_weights_whatever_the_cluster_does_to_it(tmp_path):
    """Time limit, requeue, preemption with requeue, and a node that dies: the same job goes on, and no retry is spent."""
    target, rule, what = "results/long/tokenizer/main/750k", "train_tokenizer", "long_main_750k"
    here = clone(tmp_path / "here", "long", LONG)
    there = clone(tmp_path / "there", "long", LONG, cpu_partition="requeued", warning=60)      # SLURM looks every 30 seconds
    with snakemake(there, "--profile", "slurm", target):
        _, job = in_the_middle(there, rule)
        ran = int(said("squeue", "-h", "-j", job, "-o", "%M").partition(":")[0])               # minutes
        said("scontrol", "update", f"JobId={job}", f"TimeLimit={ran + 2}")
        [pid] = trainers(job)
        wait_until(lambda: is_told(pid, signal.SIGUSR1), "it was not told that its time is over", within=200)
        go_on(job)
        wait_until(lambda: "queued again" in logs(there, rule, what), "it did not go to the queue")
        said("scontrol", "update", f"JobId={job}", "TimeLimit=30")
        _, again = in_the_middle(there, rule, after=step(there, rule, what))
        said("scontrol", "requeue", job)
        go_on(job)
        _, again = in_the_middle(there, rule, after=step(there, rule, what))
        said("sbatch", "-p", "urgent", "-w", "n3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
        wait_until(lambda: "DUE TO PREEMPTION" in logs(there, rule, what), "it was not pushed aside")
        go_on(job)
        _, again = in_the_middle(there, rule, after=step(there, rule, what))
        lose_node("n3", job)
        wait_until(lambda: not jobs(there, rule), "the node's end was not noticed")
        start_node("n3")
        assert job == again
        locally(here, target, "long")
    assert len(list(there.glob(f"runs/slurm/rule_{rule}/{what}/*.log"))) == 1
    assert re.findall("interrupted by (SIG[A-Z0-9]+)", logs(there, rule, what)) == ["SIGUSR1", "SIGTERM", "SIGTERM"]
    assert len(re.findall("resuming after step", logs(there, rule, what))) == 4
    torch.testing.assert_close(weights(there, "long"), weights(here, "long"), rtol=0, atol=0)


def test_a_training_is_queued_again_though_slurm_was_busy_at_first(tmp_path):
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n[ -e {tmp_path}/asked ] && exec {shutil.which('squeue')} \"$@\"\n"
                                     f"touch {tmp_path}/asked; echo Socket timed out >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    log = leaves(tmp_path, "[ ${SLURM_RESTART_COUNT:-0} = 1 ] || exit 75", "--ntasks=1", path=tmp_path)
    assert "Socket timed out" in log and "DUE TO JOB REQUEUE" in log and log.endswith("left with 0\n")


def test_a_cancelled_training_fails_and_a_killed_workflow_submits_nothing_twice(tmp_path):
    """Preemption that cancels; a job that a person cancels, which is tried again; and `kill -9` of Snakemake itself."""
    target, rule, what = "results/long/tokenizer/main/750k", "train_tokenizer", "long_main_750k"
    here, there = clone(tmp_path / "here", "long", LONG), clone(tmp_path / "there", "long", LONG, cpu_partition="cancelled")
    command = "--profile", "slurm", target
    with pytest.raises(AssertionError), snakemake(there, *command) as process:
        _, first = in_the_middle(there, rule)
        said("sbatch", "-p", "urgent", "-w", "n4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
        [pid] = trainers(first)
        wait_until(lambda: is_told(pid, signal.SIGTERM), "it was not pushed aside")
        go_on(first)
        in_the_middle(there, rule, after=step(there, rule, what))
        said("scancel", first)
        go_on(first)
        _, second = in_the_middle(there, rule, after=step(there, rule, what))
        process.kill()
        go_on(second, to_the_end=False)
    assert f"SLURM-job '{first}' failed, SLURM status is: 'CANCELLED'" in told(there) and second != first
    subprocess.run([*BASE, "--unlock"], cwd=there, check=True, capture_output=True)
    before = len(told(there))
    with pytest.raises(AssertionError), snakemake(there, *command):
        pass
    again = told(there)[before:]
    assert f"    {second}  RUNNING  train_tokenizer" in again and "has been submitted" not in again
    said("scancel", second)
    wait_until(lambda: not jobs(there, rule, "pending,running,completing"), "the job is still there", within=120)
    with snakemake(there, *command):
        locally(here, target, "long")
    torch.testing.assert_close(weights(there, "long"), weights(here, "long"), rtol=0, atol=0)


def test_two_nodes_with_two_tasks_each_learn_what_four_processes_of_one_machine_do(tmp_path):
    """Each task with a GPU, by SLURM; there is none, so they compute on CPUs and talk by gloo."""
    pieces = {"micro_batch: null\n  checkpoints: {750k: 40, 1M: 80}": "micro_batch: 2\n  checkpoints: {750k: 15, 1M: 20}",
              "micro_batch: null\n  steps: 80": "micro_batch: 8\n  steps: 15", "features: digits": "features: inception"}
    here, there = clone(tmp_path / "here", "parts", pieces), clone(tmp_path / "there", "parts", pieces, nodes=2)
    workstation = here / "profiles/workstation/profile.yaml"
    workstation.write_text(workstation.read_text().replace("tasks_per_node: 1 ", "tasks_per_node: 4 "))
    for folder in (here, there):                        # the doctor would miss Inception, which judges nothing here
        write_json(folder / "results/parts/doctor.json", {})
    target = "results/parts/generator/main/750k"
    with snakemake(there, "--profile", "slurm", target):
        locally(here, target, "parts", "--profile", "profiles/workstation")
    for model in ("tokenizer", "generator"):
        made = f"results/parts/{model}/main/750k/metrics.json"
        metrics = [json.loads((folder / made).read_text()) for folder in (here, there)]
        assert [each["processes"] for each in metrics] == [4, 4]
        [log] = there.glob(f"runs/slurm/rule_train_{model}/parts_main_750k/*.log")
        granted = said("scontrol", "show", "job", log.stem)
        for words in ("NodeList=n[1-2]", "NumTasks=4", "TresPerJob=gres:gpu:h100:4", "TresPerNode=gres:gpu:h100:2"):
            assert words in granted
        torch.testing.assert_close(weights(there, "parts", model), weights(here, "parts", model), rtol=0, atol=0)


def test_dvc_repro_runs_its_phases_on_the_cluster(tmp_path):
    folder = clone(tmp_path / "kept", "kept", {"{750k: 40, 1M: 80}": "{750k: 4, 1M: 6}", "steps: 100\n": "steps: 20\n"})
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy2(ROOT / name, folder / name)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)

    def repro(**more):
        done = subprocess.run([sys.executable, "-m", "dvc", "repro", "tokenizers@kept"], cwd=folder, env=environment | more,
                              capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "Running stage 'tokenizers@kept'" in repro(SNAKEMAKE_PROFILE="slurm")
    for what in ("rule_prepare/kept", "rule_train_classifier/kept", "rule_train_tokenizer/kept_main_1M"):
        assert list(folder.glob(f"runs/slurm/{what}/*.log")), what
    assert {"tokenizers@kept", "data@kept"} <= set(read_yaml((folder / "dvc.lock").read_text())["stages"])
    assert "Stage 'tokenizers@kept' didn't change" in repro()
