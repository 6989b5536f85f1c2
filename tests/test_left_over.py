"""A workflow on SLURM submits nothing while jobs of an earlier start wait or run in its folder."""

import shutil

import pytest
import warm
from conftest import ROOT
from squeue_stand_in import install, job, tell

NAME = "restok_01234567-89ab-cdef-0123-456789abcdef"
SBATCH = '#!/bin/sh\ntouch "$(dirname "$0")/submitted"; echo "no room" >&2; exit 1'
SLURM = ("--executor", "slurm", "--jobs", "2", "--slurm-status-command", "squeue",
         "--slurm-init-seconds-before-status-checks", "1", "--default-resources", "slurm_partition=cpu")


@pytest.fixture
def workflow(tmp_path):
    for name in ("workflow", "profiles", "params"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("Snakefile", "run.yaml", "environment.yml"):
        shutil.copy2(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A SLURM that takes no job."""
    install(tmp_path, monkeypatch, SBATCH, name="sbatch")
    for name in ("sacct", "sinfo", "scontrol"):                            # they are asked, and say nothing
        install(tmp_path, monkeypatch, "#!/bin/sh", name=name)
    file = install(tmp_path, monkeypatch)
    tell(file)
    return file


def snakemake(workflow, *words, targets=("results/demo/data",)):
    return warm.snakemake(workflow, *words, "--", *targets)


def test_what_was_submitted_before_is_not_submitted_again(workflow, tmp_path, squeue):
    tell(squeue, job("12", "RUNNING", name=NAME, folder=workflow, comment="rule_prepare_wildcards_demo"))
    refused = snakemake(workflow, *SLURM)
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1 and "    12  RUNNING  prepare (demo)\n" in said and "\n    scancel 12\n" in said
    assert "Traceback" not in said and not (tmp_path / "bin/submitted").exists()
    assert "This was a dry-run" in snakemake(workflow, "--dry-run", *SLURM).stdout

    tell(squeue)                                    # it has ended: no lock was left, and the job is submitted
    submitted = snakemake(workflow, *SLURM)
    assert "no room" in submitted.stdout + submitted.stderr and (tmp_path / "bin/submitted").exists()

    tell(squeue, job("12", "RUNNING", name=NAME, folder=workflow))         # on this machine's own cores nothing is asked
    assert snakemake(workflow, "--cores", "1").returncode == 0 and (workflow / "results/demo/data").is_dir()


def test_results_of_which_nobody_wrote_the_settings_down_are_named(workflow, tmp_path, squeue, digits):
    """The jobs of a Snakemake that was killed made them."""
    shutil.copytree(digits, workflow / "results/demo/data")
    targets = "results/demo/data", "results/demo/classifier"
    said = snakemake(workflow, *SLURM, targets=targets).stderr
    assert "no record of the settings of these results" in said and "\n    results/demo/data\n" in said
    forced = snakemake(workflow, "--forcerun", "results/demo/data", *SLURM, targets=targets)
    assert "no record" not in forced.stderr and (tmp_path / "bin/submitted").exists()
