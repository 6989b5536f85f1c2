"""doctor --profile on a real SLURM (tests/slurm_cluster.py): two nodes of 8 CPUs, 30,000 MB and two GPUs, no accounts. Nothing
is submitted. Not one of the tests, since its daemons need root: python -m pytest -n 0 tests/check_cluster.py"""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from slurm_cluster import said
from squeue_stand_in import install

from restok.stages.doctor.site import examine_site

SIZED = {"tasks_per_node: 8": "tasks_per_node: 2"}
GROUPS = "groups: {score_guidance: search, score_finalist: search}"
MORE = "# set-resources:"                                   # where a test writes more
SIZE = "(SLURM: Requested node configuration is not available)"


@pytest.fixture
def clone(workflow, slurm, monkeypatch) -> Path:
    """With parameters of the short demo whose jobs take a GPU, and trainings up to 16."""
    params = (workflow / "params/short.yaml").read_text()
    params = params.replace("features: digits", "features: inception").replace("micro_batch: null", "micro_batch: 1")
    (workflow / "params/gpu.yaml").write_text(params)
    monkeypatch.chdir(workflow)
    return workflow


def examined(changes=()):
    """Findings of the profile for SLURM, fitted to this cluster, with some of its text changed."""
    text = (ROOT / "workflow/profiles/slurm/profile.yaml").read_text()
    for old, new in {**SIZED, **dict(changes)}.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    Path("mine").mkdir()
    Path("mine/profile.yaml").write_text(text)
    return examine_site("mine", Path("params/gpu.yaml"), "gpu")


def faults(findings):
    return [f"{finding.what} | {finding.says}" for finding in findings if finding.state == "fault"]


def test_a_profile_that_fits_is_granted_and_nothing_is_submitted(clone):
    findings = examined()
    found = {finding.what: finding for finding in findings}
    assert faults(findings) == []
    granted = r"2 GPUs, 2 CPUs, 16.1 GB, (up to )?[\d.]+ (min|h) in partition gpu: granted"
    assert re.fullmatch(granted, found["train_tokenizer, train_generator"].says)
    assert re.fullmatch(r"1 CPU, 8.03 GB, [\d.]+ (min|h) in partition cpu: granted", found["encode"].says)
    assert "squeue, which knows a job for 3600 s" in found["ends of jobs"].says
    named = {rule for what in found for rule in what.split(", ")}
    assert {"prepare_part", "encode", "score_guidance", "score_finalist (group search)", "evaluate_generation"} <= named
    assert not {"table", "figure", "page", "all"} & named                     # processes of the login node
    assert said("squeue", "--noheader", "--name=restok_doctor") == ""
    assert not Path("results").exists() and not Path("runs").exists()


SEVERAL = f"""\
set-resources:
  prepare: {{mem_mb: 64000}}
  encode: {{constraint: "'fast'"}}
  panel: {{slurm_extra: "'--mem=1'"}}
  sample: {{gpu: 4}}
set-threads: {{reference: 9}}
{MORE}"""


@pytest.mark.parametrize(("changes", "told"), [
    ({"gpu_partition: gpu": "gpu_partition: gpus"}, [
        "train_tokenizer.* site.gpu_partition: there is no partition 'gpus' .SLURM: invalid partition specified: gpus, Invalid "
        "partition name specified.; name one of cpu, gpu, "]),
    ({"gpu_model: null": "gpu_model: H100", MORE: f"set-resources: {{encode: {{runtime: 1450}}}}\n{MORE}"}, [
        "encode | mine/profile.yaml: set-resources: encode: runtime: 1,450 minutes, but partition cpu gives a job 1,440: it "
        "would wait for ever; take 1440 or less",
        f"site.gpu_model: no node of partition gpu has a GPU of type 'H100' {SIZE}; take h100, as nodes call it"]),
    ({"tasks_per_node: 2": "tasks_per_node: 16"}, [
        f"site.tasks_per_node: 16 GPUs on a node, but those of partition gpu have 2 {SIZE}; take 2 or less",
        "site.tasks_per_node: 16 processes of 1 CPUs on a node, but those of partition gpu have 8"]),
    ({"nodes: 1 ": "nodes: 4 "}, [
        "train_tokenizer, train_generator | mine/profile.yaml: site.nodes: 8 GPUs, 8 CPUs, 16.1 GB on each of 4 nodes",
        f"partition gpu has 2 such nodes {SIZE}; take 2 or less"]),
    ({MORE: SEVERAL, GROUPS: "groups: {encode_part: parts}\ngroup-components: {parts: 8}", "\nresources: {in_turn: 1}": ""}, [
        "prepare | mine/profile.yaml: set-resources: prepare: mem_mb: 64,000 MB on a node, but those of partition cpu have 30",
        "encode | mine/profile.yaml: set-resources: encode: constraint: refused for 1 CPU, 8.03 GB, ",
        "panel | mine/profile.yaml: set-resources: panel: slurm_extra: refused for 1 GPU, 1 CPU, 8.03 GB, ",
        "sample | mine/profile.yaml: set-resources: sample: gpu: 4 GPUs on a node, but those of partition gpu have 2",
        "reference | mine/profile.yaml: set-threads: reference: 9 CPUs on a node, but those of partition gpu have 8",
        "encode_part | mine/profile.yaml: group-components: parts: 8 GPUs on a node, but those of partition gpu have 2"])],
    ids=["no partition", "too long, and a type in capitals", "too many on a node", "too many nodes", "steps of their own"])
def test_what_slurm_refuses_or_never_starts_is_named_by_its_key(changes, told, clone):
    found = faults(examined(changes))
    for each in told:
        pattern = each if ".*" in each else re.escape(each)
        assert any(re.search(pattern, line) for line in found), "\n".join([each, *found])


@pytest.fixture
def strange(slurm):
    """A partition that takes nobody's jobs."""
    words = "Nodes=n1", "State=DOWN", "AllowAccounts=physics", "AllowQos=long", "MaxTime=00:05:00"
    subprocess.run(["scontrol", "create", "PartitionName=strange", *words], check=True)
    yield
    subprocess.run(["scontrol", "delete", "PartitionName=strange"], check=True)


def test_a_partition_whose_jobs_would_wait_for_ever_is_a_fault(clone, strange):
    found = "\n".join(faults(examined({"cpu_partition: cpu": "cpu_partition: strange"})))
    for told in ("site.cpu_partition: partition strange is DOWN: its jobs wait; name another one",
                 "default-resources: slurm_account: none, but partition strange takes physics alone; name one",
                 "default-resources: qos: none, but partition strange takes long alone",
                 " minutes, but partition strange gives a job 5: it would wait for ever; take 5 or less"):
        assert told in found, found


def test_without_accounts_none_is_checked_and_sacct_knows_nothing(clone):
    findings = examined({"tmpdir: /tmp": "slurm_account: nobody\n  tmpdir: /tmp", "gpu_model: null": "gpu_model: h100",
                         "slurm-status-command: squeue": "slurm-status-command: sacct"})
    assert [(each.state, each.says) for each in findings if each.what == "account"] == [
        ("not known", "nobody; this SLURM keeps no accounts")]
    assert any("2 GPUs h100, 2 CPUs" in finding.says for finding in findings)
    (told,) = faults(findings)
    assert "slurm-status-command: Snakemake would ask sacct, but this SLURM keeps no accounts; write squeue" in told


def test_a_partition_that_ends_jobs_for_others_is_named(clone):
    [found] = [each for each in examined({"cpu_partition: cpu": "cpu_partition: cancelled"}) if each.what == "queued again"]
    assert found.state == "not known" and "partition cancelled ends jobs for good" in found.says


def test_a_slurm_that_does_not_answer_is_said_once(clone, tmp_path, monkeypatch):
    words = "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)"
    for name in ("scontrol", "sinfo"):
        install(tmp_path, monkeypatch, f"#!/bin/sh\necho '{words}' >&2\nexit 1\n", name)
    assert faults(examined()) == [f"SLURM | scontrol: {words}; call it where SLURM answers, such as on a login node"]
