"""What SLURM is asked: whether a job's processes may live, and which jobs an earlier workflow left."""

import time

import pytest
from squeue_stand_in import install, job, tell

from restok import slurm

NOW = 1_795_700_000.0
NAME = "restok_01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "CA")
    file = install(tmp_path, monkeypatch)
    tell(file)
    return lambda *jobs: tell(file, *jobs)


@pytest.mark.parametrize(("state", "lives"), [
    ("RUNNING", True), ("CONFIGURING", True), ("COMPLETING", True), ("SUSPENDED", True), ("STOPPED", True), ("SIGNALING", True),
    ("RESIZING", True), ("REQUEUED", True),
    ("COMPLETED", False), ("CANCELLED", False), ("FAILED", False), ("TIMEOUT", False), ("DEADLINE", False),
    ("NODE_FAIL", False), ("BOOT_FAIL", False), ("OUT_OF_MEMORY", False), ("PREEMPTED", False), ("STAGE_OUT", False),
    ("PENDING", False), ("REQUEUE_HOLD", False), ("SPECIAL_EXIT", False), ("RESV_DEL_HOLD", False),
    ("REVOKED", None), ("REQUEUE_FED", None), ("A_NEW_STATE", None)])
def test_each_state_says_whether_processes_may_live(state, lives, squeue):
    squeue(job(state=state, started=int(NOW)))
    assert slurm.may_live("71", NOW) is lives


def test_a_job_that_slurm_does_not_know_any_more_is_over(squeue):
    squeue(job("72"))
    assert slurm.may_live("71", NOW) is False


@pytest.mark.parametrize(("started", "lives"), [
    (NOW - 3600, True),
    (NOW + 59, True),            # the minute of NOW is not over
    (NOW + 300, False)])         # requeued
def test_of_a_job_that_runs_an_earlier_start_is_over(started, lives, squeue):
    squeue(job(started=int(started)))
    assert slurm.may_live("71", NOW) is lives


def test_a_job_of_an_array_is_told_from_the_others(squeue):
    """The last one has the number of the array."""
    array = [job("72", "RUNNING", index="71_1"), job("71", "FAILED", index="71_2")]
    squeue(*array)
    assert (slurm.may_live("71", NOW), slurm.may_live("72", NOW)) == (False, True)


@pytest.mark.parametrize(("script", "told"), [
    ("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
     "squeue: slurm_load_jobs error: Unable to contact slurm controller .*; try again"),
    ("#!/bin/sh\nexit 7", "squeue: exit code 7; try again"),
    ("", "squeue: cannot be called"),
    ("#!/bin/sh\nsleep 30", "squeue: no answer within 0 s")])         # sleep holds the pipes on after its shell was killed
def test_without_an_answer_nothing_is_known(script, told, tmp_path, monkeypatch):
    if not script:
        monkeypatch.setenv("PATH", str(tmp_path))                       # a machine without SLURM
    else:
        install(tmp_path, monkeypatch, script)
    began = time.monotonic()
    with pytest.raises(slurm.SlurmError, match=told):
        slurm._squeue("%A", seconds=0.4)
    assert time.monotonic() - began < 20
    if "sleep" not in script:
        assert slurm.may_live("71", NOW) is None
        with pytest.raises(slurm.SlurmError, match=told):
            slurm.require_none_left_over(tmp_path)


def test_an_answer_that_does_not_name_the_job_says_nothing(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "#!/bin/sh\necho 'CLUSTER: one'")
    assert slurm.may_live("71", NOW) is None


def test_jobs_of_an_earlier_workflow_in_a_folder_are_named(tmp_path, squeue):
    """By their names; what others submitted, or from elsewhere, is none, nor what has ended."""
    here = tmp_path / "a | folder"
    here.mkdir()
    (tmp_path / "link").symlink_to(here)
    squeue(job("12", "RUNNING", name=NAME, folder=here, comment="rule_train_tokenizer_wildcards_demo_1M"),
           job("13", "PENDING", name=NAME, folder=here, comment="rule_fetch"),
           job("15", "PENDING", name=NAME, folder=here, index="14_[2-9]", comment="rule_encode_part_wildcards_demo_0|-of-9"),
           job("14", "RUNNING", name=NAME, folder=here, index="14_1"),                       # a site that takes comments away
           job("16", "COMPLETED", name=NAME, folder=here, comment="rule_fetch"),
           job("17", "RUNNING", name=NAME, folder=tmp_path, comment="rule_fetch"),
           job("18", "RUNNING", name="jupyter", folder=here))
    with pytest.raises(slurm.SlurmError) as error:
        slurm.require_none_left_over(tmp_path / "link")
    assert str(error.value).splitlines()[1:5] == [
        "    12  RUNNING  train_tokenizer (demo_1M)", "    13  PENDING  fetch",
        "    14_[2-9]  PENDING  encode_part (demo_0|-of-9)", f"    14_1  RUNNING  {NAME}"]
    assert str(error.value).endswith("\n    scancel 12 13 14")
    slurm.require_none_left_over(here.parent / "bin")
