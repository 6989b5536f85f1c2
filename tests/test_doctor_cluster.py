"""doctor --profile without a cluster: the profile is read strictly, and what SLURM says is taken apart. On a real one:
tests/check_cluster.py."""

import inspect
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import snakemake_executor_plugin_slurm as plugin
import torch
from conftest import ROOT
from snakemake_executor_plugin_slurm_jobstep import get_cpu_setting
from squeue_stand_in import install

from restok.config import Site
from restok.config.load import ConfigError
from restok.slurm import SlurmError
from restok.stages.doctor import cluster, granted, machine, site
from restok.stages.doctor.plan import Plan, PlanError, Request, plan
from restok.stages.doctor.profile import RESOURCES, Profile, names, read_profile

SLURM = (ROOT / "workflow/profiles/slurm/profile.yaml").read_text()


def profile_of(**tree):
    return Profile(Path("profile.yaml"), tree, Site())


# The profile


@pytest.mark.parametrize("name", ["slurm", "profiles/workstation", "profiles/default", "slurm/profile.yaml"])
def test_profiles_of_the_clone_are_sound(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert read_profile(name).file == Path(name.removesuffix("/profile.yaml")) / "profile.yaml"


@pytest.mark.parametrize(("text", "told"), [
    ("", "profile.yaml: expected keys and values, found NoneType"),
    ("executor", "profile.yaml: expected keys and values, found str"),
    (b"\x00\x93\xff", "not valid YAML in UTF-8"),
    (b"executor: \xff", "not valid YAML in UTF-8: byte 0xff in line 1"),
    ("executor: slurm\nsite:\n\tx: 1", "not valid YAML: line 3, column 1"),
    ("executor: slurm\nexecutor: local", "line 2, column 1: key 'executor' stands twice"),
    ("executr: slurm", "profile.yaml: executr: no option of Snakemake; did you mean 'executor'?"),
    ("set-resource: {encode: {mem_mb: 1}}", "set-resource: no option of Snakemake; did you mean 'set-resource"),
    ("slurm-status-comand: squeue", "did you mean 'slurm-status-command'?"),
    ("sites: {}", "did you mean 'site'?"),
    ("jobs: {a: 1}", "jobs: Snakemake takes no mapping here, and would pass over it"),
    ("set-resources: {encode: 3}", "Invalid set-resources format"),
    ("configfile: profile.yaml\nsite: {gpu_partion: a}", "site: gpu_partion: unknown key; did you mean 'gpu_partition'"),
    ("site: {run: demo}", "configfile: the workflow reads `site` only of files that are named here; write profile.yaml")])
def test_a_profile_that_snakemake_would_misread_is_refused(text, told, tmp_path):
    (tmp_path / "profile.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_profile(str(tmp_path))


def test_every_fault_of_a_profile_is_told_at_once(tmp_path):
    (tmp_path / "profile.yaml").write_text("executr: slurm\njobs: {a: 1}\nconfigfile: other.yaml\nsite: {longest: 0}")
    with pytest.raises(ConfigError) as error:
        read_profile(str(tmp_path))
    assert [re.search(r"yaml: ([\w.: ]+?):? ", f"{line} ")[1] for line in str(error.value).splitlines()] == [
        "executr", "jobs", "configfile", "site"]


@pytest.mark.parametrize(("name", "told"), [("nowhere", "no such profile here, in "), ("", "no such profile"),
                                            ("folder", "a folder without profile.yaml")])
def test_a_profile_that_is_not_there_is_looked_for_as_snakemake_does(name, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match=told):
        read_profile(name)


def test_names_that_there_are_not_are_faults():
    """Snakemake passes over them."""
    tree = {"groups": {"score_guidnce": "a"}, "group-components": ["a=2", "b=3"], "set-scatter": {"encoded": 2},
            "set-threads": {"panel": 1},
            "set-resources": {"encode": {"mem_md": 1, "runtime": 2, "in_turn": 1}, "encodes": {"mem": 1}},
            "default-resources": ["slurm_acount=x"], "resources": {"in_turn": 1, "license": 2}}
    rules = ["encode", "panel", "score_guidance"]
    assert [line.partition(": ")[2] for line in names(profile_of(**tree), rules, ["mem_mb"], ["encode"])] == [
        "resources: license: limits nothing, since no rule asks for it; leave it out",
        "groups: score_guidnce: no such name; did you mean 'score_guidance'?", "group-components: b: no such name; there are a",
        "set-scatter: encoded: no such name; did you mean 'encode'?",
        "default-resources: slurm_acount: no such name; did you mean 'slurm_account'?",
        "set-resources: encode: mem_md: no such name; did you mean 'mem_mb'?",
        "set-resources: encodes: no such name; did you mean 'encode'?"]


@pytest.mark.parametrize("said", [{"encode": {"mem_mb": 1}, "panel": {"qos": "x"}}, ["encode:mem_mb=1", "panel:qos='x'"]])
def test_resources_of_a_rule_may_be_said_in_both_ways(said):
    profile = profile_of(**{"set-resources": said})
    assert (profile.changed("encode"), profile.changed("panel"), profile.changed("prepare")) == ({"mem_mb"}, {"qos"}, set())


def test_the_names_of_resources_are_those_that_the_executor_reads():
    source = "".join(map(inspect.getsource, (plugin.get_submit_command, plugin.set_gres_string, get_cpu_setting,
                                             plugin.Executor.get_account_arg, plugin.Executor.get_partition_arg)))
    assert set(re.findall(r"resources(?:\.get\(\s*\"|\.(?!get\b))(\w+)", source)) <= set(RESOURCES)


# The plan


@pytest.fixture
def clone(workflow, monkeypatch):
    monkeypatch.chdir(workflow)
    return workflow


def test_a_workstation_is_asked_for_no_gpus_that_it_lacks(clone):
    found = site.examine_site("profiles/workstation", Path("params/demo.yaml"), "demo")
    assert {"GPUs": "ok", "commands": "ok"} == {finding.what: finding.state for finding in found}
    assert not Path("results").exists() and not Path("runs").exists()
    if torch.cuda.device_count() < 8:
        Path("eight").mkdir()
        text = Path("profiles/workstation/profile.yaml").read_text()
        Path("eight/profile.yaml").write_text(text.replace("tasks_per_node: 1", "tasks_per_node: 8"))
        (told,) = [each.says for each in site.examine_site("eight", Path("params/imagenet256.yaml"), "imagenet256")
                   if each.what == "GPUs"]
        assert told.startswith("eight/profile.yaml: site.tasks_per_node: train_tokenizer takes 8 GPUs, but here are")


def test_what_keeps_snakemake_from_a_plan_is_its_own_message(clone):
    Path("mine").mkdir()
    Path("mine/profile.yaml").write_text("executor: local\njobs: many\n")
    with pytest.raises(PlanError, match=r"snakemake -n --profile mine: .*must be integer"):
        plan("mine", "demo")
    with pytest.raises(PlanError, match=r"params/nowhere.yaml: cannot be read"):
        plan("profiles/workstation", "nowhere")


def test_jobs_of_the_workflow_are_meant(clone, command, tmp_path):
    told = "the jobs are those of the workflow, which reads params/other.yaml; call it at the root"
    assert told in site.examine_site("slurm", tmp_path / "other.yaml", "other")[0].says
    done = command("doctor", "--params", "params/demo.yaml", "--profile", "slurm", "--set", "data.workers=1")
    assert done.exit_code == 1 and "jobs of the workflow know the parameter file alone" in " ".join(done.output.split())


@pytest.mark.parametrize(("first", "state", "told"), [
    ("the environment by a link", "ok", "restok, snakemake in"), ("a link to a command", "ok", "restok, snakemake in"),
    ("another command", "fault", "restok: of another environment than this restok"),
    ("nothing", "fault", "restok, snakemake: not found by a shell")])
def test_jobs_find_the_commands_of_this_environment(first, state, told, tmp_path, monkeypatch):
    own, bash = Path(sys.executable).parent, Path(shutil.which("bash")).parent
    (tmp_path / "link").symlink_to(own)
    paths = {"the environment by a link": f"{tmp_path}/link:{bash}", "nothing": str(bash)}
    monkeypatch.setenv("PATH", paths.get(first, f"{own}:{bash}"))
    if first == "another command":
        install(tmp_path, monkeypatch, "#!/bin/sh\n", "restok")
    if first == "a link to a command":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/restok").symlink_to(own / "restok")
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{own}:{bash}")
    found = machine.commands("restok", "snakemake")
    assert found.state == state and told in found.says


@pytest.mark.skipif(not Path("/proc/mounts").exists(), reason="no Linux")
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount():
    assert machine._file_system(Path("/proc/self")) == "proc"
    assert machine._file_system(Path("/dev/shm/none")) == "tmpfs"


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
def test_without_slurms_commands_nothing_is_asked(account, asked, clone, tmp_path, monkeypatch):
    Path("mine").mkdir()
    Path("mine/profile.yaml").write_text(SLURM.replace("tmpdir: /tmp", account or "tmpdir: /tmp"))
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
    ("#!/bin/sh\nsleep 3", "scontrol: no answer within 0 s"),
    ("", "scontrol: cannot be called")])
def test_a_command_that_does_not_answer_is_said(script, told, tmp_path, monkeypatch):
    if script:
        install(tmp_path, monkeypatch, script, "scontrol")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(SlurmError, match=told):
        cluster.ask("scontrol", "show", "config", seconds=0.4)
    assert time.monotonic() - began < 2
