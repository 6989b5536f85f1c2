"""What Snakemake would submit for a whole run, by Snakemake itself: the jobs of a dry run with a profile, and the words of
sbatch for each. In a process of its own, since Snakemake takes one for itself:

    python -m restok.stages.doctor.submissions OUT.json WORDS of snakemake
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import snakemake_executor_plugin_slurm as slurm
from snakemake import cli, workflow
from snakemake.executors import dryrun
from snakemake.logging import logger
from snakemake.resources import Resources
from snakemake_executor_plugin_slurm.partitions import read_partition_file
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

SETTINGS = "status_command", "init_seconds_before_status_checks", "requeue", "no_requeue"


class Submitting(slurm.Executor):
    """Snakemake's executor of SLURM, which submits nothing."""

    def __init__(self, settings: Any) -> None:
        self.logger, self.workflow = logger, SimpleNamespace(executor_settings=settings)
        self._fallback_account_arg = self._fallback_partition = None
        self._partitions = read_partition_file(settings.partition_config) if settings.partition_config else None

    def call(self, job: Any) -> str:
        """As the executor's `run_job` has it. Raises WorkflowError, or OSError where SLURM's commands are not there."""
        validate_slurm_extra(job)
        said = {"run_uuid": "restok_doctor", "slurm_logfile": "/dev/null", "comment_str": "", "workdir": Path.cwd(),
                "account": next(self.get_account_arg(job)), "partition": self.get_partition_arg(job)}
        return get_submit_command(job, said, settings=self.workflow.executor_settings) + set_gres_string(job)


class Listing:
    """In the place of Snakemake's scheduler, which gets a finished plan: what it would submit, each kind of job once."""

    executor: Submitting | None
    found: dict[str, Any]

    def __init__(self, of: Any, *_: Any) -> None:
        self.of = of

    def schedule(self) -> bool:
        kinds: dict[str, Any] = {}
        for job in {self.of.dag.get_job_group(job) or job for job in self.of.dag.needrun_jobs()}:
            if self.executor and job.is_local:             # Snakemake's own processes, on the machine where it runs
                continue
            if job.is_group():
                job.finalize()
            kind = _kind(job)
            if (key := json.dumps(kind, sort_keys=True)) not in kinds:
                kinds[key] = kind | self._call(job)
        self.found.update(jobs=[kinds[key] for key in sorted(kinds)], rules=[rule.name for rule in self.of.rules],
                          resources=sorted({name for rule in self.of.rules for name in rule.resources}),
                          scatter=list(self.of._scatter))
        return True

    def _call(self, job: Any) -> dict[str, str | None]:
        try:
            return {"call": self.executor.call(job) if self.executor else None, "error": None}
        except (WorkflowError, OSError) as error:
            return {"call": None, "error": str(error)}


def _kind(job: Any) -> dict[str, Any]:
    """Its rules, and what it asks for; not the sizes of files, which Snakemake guesses."""
    members = list(job.jobs) if job.is_group() else [job]
    asks = {name: value for name, value in job.resources.items()
            if type(value) in (int, str) and not name.startswith(("disk", "_", "mem_mib"))}
    return {"rules": sorted({member.rule.name for member in members}), "group": job.groupid if job.is_group() else None,
            "members": len(members), "threads": job.threads, "asks": asks}


def main(out: Path, words: list[str]) -> int:
    """Its exit code; what keeps Snakemake from a plan is said by Snakemake."""
    parser, args = cli.parse_args(["--dry-run", "--forceall", *words])
    args.cores = args.cores or sys.maxsize                 # else one, in a dry run
    Listing.executor, Listing.found = None, {"executor": args.executor or "local", "settings": {}, "limits": {}}
    limits = args.resources or Resources()
    Listing.found["limits"] = {name: limit.raw for name, limit in limits.items()}
    # Snakemake cuts what a job asks for to these, in silence, but not the number of its processes.
    args.resources = Resources({name: limit for name, limit in limits.items() if name != "gpu"})
    if args.executor == "slurm":
        settings = ExecutorPluginRegistry().get_plugin("slurm").get_settings(args)
        Listing.executor = Submitting(settings)
        Listing.found["settings"] = {name: getattr(settings, name) for name in SETTINGS}
        dryrun.common_settings.non_local_exec = True       # else it plans for processes of this machine
    workflow.JobScheduler = Listing
    if not cli.args_to_api(args, parser):
        return 1
    out.write_text(json.dumps(Listing.found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
