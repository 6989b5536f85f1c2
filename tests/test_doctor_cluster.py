"""doctor --profile without a cluster: what SLURM says is taken apart. On a real one: tests/check_cluster.py."""

import re
import shutil
import time
from pathlib import Path

import pytest
from conftest import ROOT
from squeue_stand_in import install

from restok.config import Site
from restok.slurm import SlurmError, ask
from restok.stages.doctor import cluster, granted, site
from restok.stages.doctor.plan import Plan, Request
from restok.stages.doctor.profile import Profile

SLURM = (ROOT / "workflow/profiles/slurm/profile.yaml").read_text()


def profile_of(**tree):
    return Profile(Path("profile.yaml"), tree, Site())


# What SLURM says

NODE = ("NodeName=n7 Arch=x86_64 CoresPerSocket=32 CPUAlloc=0 CPUEfctv=126 CPUTot=128 Gres={gres} NodeHostName=n7 OS=Linux 6.1 "
        "#1 SMP RealMemory=515000 MemSpecLimit=3000 State={state} Partitions=gpu,long")


@pytest.mark.parametrize(("gres", "gpus"), [
    ("gpu:h100:2", {"h100": 2}), ("gpu:8", {"": 8}), ("(null)", {}),
    ("gpu:a100:4(S:0-1),shard:8,gpu:tesla:2", {"a100": 4, "tesla": 2}),
    ("lustre:1,gpu:nvidia_a100_1g.10gb:7(S:0)", {"nvidia_a100_1g.10gb": 7}), ("gpu:h100:2(S:0),gpu:h100:2(S:1)", {"h100": 4})])
def test_the_gpus_of_a_node_are_counted_by_type(gres, gpus):
    node = cluster._node(NODE.format(gres=gres, state="IDLE"))
    assert node.gpus == gpus and node.here
    assert (node.cpus, node.memory, node.partitions) == (126, 512_000, {"gpu", "long"})


@pytest.mark.parametrize(("state", "here"), [
    ("MIXED+PLANNED", True), ("IDLE+POWERED_DOWN", True), ("IDLE+CLOUD+POWERED_DOWN", True), ("IDLE+DRAIN", False),
    ("DOWN*+NOT_RESPONDING", False), ("DOWN*", False), ("FUTURE", False)])
def test_a_node_that_takes_no_jobs_is_told_from_one_that_sleeps(state, here):
    assert cluster._node(NODE.format(gres="gpu:1", state=state)).here == here


@pytest.mark.parametrize(("text", "minutes"), [
    ("1-00:00:00", 1440), ("01:00:00", 60), ("UNLIMITED", None), ("7-12:30:00", 10830)])
def test_times_of_partitions(text, minutes):
    assert cluster.minutes(text) == minutes


@pytest.mark.parametrize(("age", "by", "accounts", "sacct", "told"), [
    (300, "squeue", True, True, ("ok", "squeue, which knows a job for 300 s")),
    (120, "squeue", True, True, ("fault", "forgets a job 120 s after its end (MinJobAge of SLURM), but Snakemake may ask only "
                                          "every 180 s; write sacct")),
    (120, "squeue", False, False, ("fault", "ask those who run the cluster for 200 s at least")),
    (60, "squeue", True, True, ("ok", "asked of sacct")),                           # falls back
    (60, "squeue", False, True, ("fault", "Snakemake would ask sacct, but this SLURM keeps no accounts")),
    (60, "sacct", True, False, ("fault", "forgets a job 60 s")),
    (60, "sacct", True, True, ("ok", "asked of sacct"))])
def test_snakemake_hears_of_the_end_of_its_jobs(age, by, accounts, sacct, told, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    if sacct:
        install(tmp_path, monkeypatch, name="sacct")
    settings = {"MinJobAge": f"{age} sec", "AccountingStorageType": f"accounting_storage/{'slurmdbd' if accounts else 'none'}"}
    asked = Plan("slurm", {"status_command": by, "init_seconds_before_status_checks": 30}, {}, [], [], [], [])
    found = site._ends(asked, cluster.Cluster(settings, {}, []), profile_of())
    assert found.state == told[0] and told[1] in found.says


@pytest.mark.parametrize(("requeue", "no_requeue", "default", "state"), [
    (True, False, "0", "ok"), (False, False, "1", "ok"), (False, False, "0", "fault"), (False, True, "1", "fault")])
def test_a_training_is_queued_again(requeue, no_requeue, default, state):
    asked = Plan("slurm", {"requeue": requeue, "no_requeue": no_requeue}, {}, [], [], [], [])
    assert site._queued_again(asked, cluster.Cluster({"JobRequeue": default}, {}, []), profile_of()).state == state


def test_a_default_that_every_step_replaces_is_a_fault():
    profile = profile_of(**{"default-resources": {"slurm_partition": "a", "tmpdir": "/tmp"}})
    found = [each.says for each in site._names(Plan("slurm", {}, {}, [], [], [], []), profile)]
    assert found == ["profile.yaml: default-resources: slurm_partition: never counts, since each step says its own; write "
                     "site.cpu_partition and site.gpu_partition"]


PARTITION = "PartitionName={name} AllowAccounts={accounts} MaxNodes=UNLIMITED MaxTime={time} State={state}"


@pytest.mark.parametrize(("where", "accounts", "kept", "faults"), [
    ("gpu", "ALL", True, []),
    ("short", "ALL", True, ["site.cpu_partition: all 1 nodes of partition short are down, drained or away: its jobs wait",
                            "site.longest: 90 minutes, but partition short gives a job 60: it would wait for ever"]),
    ("short,gpu", "ALL", True, []),                            # starts in the other one
    ("gpu,lang", "ALL", True, ["site.cpu_partition: there is no partition 'lang'"]),
    ("gpu", "physics", True, []),                              # the user's own account may be that
    ("gpu", "physics", False, ["default-resources: slurm_account: none, but partition gpu takes physics alone"])])
def test_what_slurm_takes_and_never_starts(where, accounts, kept, faults):
    said = [PARTITION.format(name=name, accounts=accounts, time=time, state="UP") for name, time in
            (("gpu", "UNLIMITED"), ("long", "UNLIMITED"), ("short", "01:00:00"))]
    nodes = [cluster._node(NODE.format(gres="gpu:1", state="IDLE")),
             cluster._node(NODE.format(gres="gpu:1", state="IDLE+DRAIN").replace("gpu,long", "short"))]
    settings = {"AccountingStorageType": f"accounting_storage/{'slurmdbd' if kept else 'none'}"}
    here = cluster.Cluster(settings, {each.name: each for each in map(cluster._partition, said)}, nodes)
    request = Request(("encode",), None, 1, {"mem_mb": 2000, "runtime": 90}, ("sbatch", "-p", where), None)
    assert sorted(fault.what for fault in granted._faults(request, False, here, profile_of())) == faults


def test_a_request_says_what_it_takes():
    asks = {"gpu": 8, "gpu_model": "h100", "nodes": 2, "tasks_per_node": 4, "mem_mb": 186_616, "runtime": 1440}
    assert str(Request(("train_tokenizer",), None, 16, asks, ("sbatch", "-p", "gpu"), None)) == (
        "8 GPUs h100, 128 CPUs, 187 GB on each of 2 nodes, 24 h in partition gpu")


# SLURM that is not there


@pytest.mark.parametrize(("account", "asked"), [("", "sacct"), ("slurm_account: mine", "sacctmgr")])
def test_without_slurms_commands_nothing_is_asked(account, asked, workflow, tmp_path, monkeypatch):
    monkeypatch.chdir(workflow)
    Path("mine").mkdir()
    Path("mine/profile.yaml").write_text(SLURM.replace("tmpdir: /tmp", account or "tmpdir: /tmp"))
    (tmp_path / "bin").mkdir()
    for each in ("which", "bash"):                             # Snakemake calls them
        (tmp_path / "bin" / each).symlink_to(shutil.which(each))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (found,) = site.examine_site("mine", Path("params/demo.yaml"), "demo")
    assert found.says.startswith(f"no sbatch, squeue, scontrol, scancel, srun, sinfo, {asked} in PATH; call it on a login node")


@pytest.mark.parametrize(("words", "silent"), [
    ("Unable to contact slurm controller (connect failure)", True), ("Socket timed out on send/recv operation", True),
    ("Name an account, or contact help@site", False)])
def test_a_refusal_is_told_from_no_answer(words, silent, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, f"#!/bin/sh\necho 'sbatch: error: {words}' >&2; exit 1", "sbatch")
    request = Request(("encode",), None, 1, {}, ("sbatch", "-p", "gpu"), None)
    if silent:
        with pytest.raises(SlurmError, match=re.escape(words)):
            granted._refusal(request)
    else:
        assert granted._refusal(request) == words


@pytest.mark.parametrize(("script", "told"), [
    ("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1", "scontrol: Unable to contact slurm controller"),
    ("#!/bin/sh\nexit 7", "scontrol: exit code 7"),
    ("#!/bin/sh\nsleep 30", "scontrol: no answer within 0 s"),
    ("", "scontrol: cannot be called")])
def test_a_command_that_does_not_answer_is_said(script, told, tmp_path, monkeypatch):
    if script:
        install(tmp_path, monkeypatch, script, "scontrol")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(SlurmError, match=told):
        ask("scontrol", "show", "config", seconds=0.4)
    assert time.monotonic() - began < 20
