import os

from snakemake.logging import logger

from restok.mirror import child
from restok.slurm import require_none_left_over, unrecorded


onstart:
    # MLflow shows what the jobs write, in a process that ends with this one. The jobs start none of their own.
    if workflow.is_main_process:
        child.start(*sorted({job.wildcards.run for job in workflow.dag.jobs if hasattr(job.wildcards, "run")}))
        os.environ[child.SWITCH] = child.OFF
    # When Snakemake is killed, its jobs go on. Another start would submit them a second time; and of what they make in the
    # meantime nobody writes down the settings.
    if workflow.is_main_process and workflow.executor_plugin.name == "slurm":
        require_none_left_over(Path(workflow.workdir_init))
        kept = [job for job in workflow.dag.jobs if workflow.dag.reason(job).no_metadata and not workflow.dag.needrun(job)]
        if made := sorted(str(file) for job in kept for file in job.output if Path(file).exists()):
            logger.warning(unrecorded(made))
