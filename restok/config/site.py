"""What the workflow is told beside the parameters: what to make, in run.yaml, and of a machine, in the block `site:` of a
profile."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from restok.config.base import Config

Number = Annotated[int, Field(gt=0, le=4096)]
Minutes = Annotated[int, Field(gt=0, le=10**6)]


class Choice(Config):
    """What is made, where nobody names a target: run.yaml."""

    run: str                               # a parameter file, params/RUN.yaml
    rows: Literal["main", "all"]           # of the sheet: those that show the run's own models, or all


class Site(Config):
    """Every field may be left out: then a job is a process of this machine."""

    launcher: Literal["srun", "torchrun"] | None = None     # what starts a training that takes several processes
    tasks_per_node: Number = 1             # processes of a training on one machine, one a GPU, at the most
    nodes: Number = 1                      # machines of a training, at the most
    cpu_partition: str | None = None       # SLURM's, of jobs without a GPU; None: its default
    gpu_partition: str | None = None
    gpu_model: str | None = None           # None: any
    longest: Minutes | None = None         # minutes that a job may ask for; a training that needs more goes on in the next ones
    warning: Number = 300                  # seconds before that time is over, when a training is told to save

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.launcher is None and (self.tasks_per_node, self.nodes) != (1, 1):
            raise ValueError("launcher: 'srun' or 'torchrun', which start several processes")
        if self.launcher == "torchrun" and self.nodes > 1:
            raise ValueError("nodes: 1 with 'torchrun'; on several machines 'srun' starts the processes")
        if self.nodes > 1 and self.tasks_per_node == 1:
            raise ValueError("tasks_per_node: at least 2 with several nodes: Snakemake's executor of SLURM wants that")
        least = (2 * self.warning + 120) // 60 + 1         # SLURM may warn a minute early, and a training takes one to begin
        if self.longest and self.longest < least:
            raise ValueError(f"longest: at least {least} minutes with a warning of {self.warning} s: else a training may be "
                             "told to stop before its first step, again and again")
        return self
