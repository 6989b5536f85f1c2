from restok.slurm import require_none_left_over


onstart:
    # When Snakemake is killed, its jobs go on. Another start would submit them a second time.
    if workflow.is_main_process and workflow.executor_plugin.name == "slurm":
        require_none_left_over(Path(workflow.workdir_init))
