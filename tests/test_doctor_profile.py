"""doctor --profile: a profile is read strictly, and Snakemake plans the run with it."""

import inspect
import re
import shutil
import sys
from pathlib import Path

import pytest
import snakemake_executor_plugin_slurm as plugin
import torch
from conftest import ROOT
from snakemake_executor_plugin_slurm_jobstep import get_cpu_setting
from squeue_stand_in import install

from restok.config import Site
from restok.config.load import ConfigError
from restok.stages.doctor import machine, site
from restok.stages.doctor.plan import PlanError, plan
from restok.stages.doctor.profile import RESOURCES, Profile, names, read_profile


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
