"""From raw images to the paper's tables and figures. `snakemake` makes reports/demo of the main run, `snakemake ablations` the
tables that take other trained models; name another target for another parameter file: `snakemake
reports/imagenet256/table1.csv` reads params/imagenet256.yaml. reports/table1.csv is that of the chosen run (run.yaml).
"""

from snakemake.utils import min_version

min_version("9.19")


include: "workflow/rules/common.smk"
include: "workflow/rules/scatter.smk"
include: "workflow/rules/doctor.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tokenizer.smk"
include: "workflow/rules/codes.smk"
include: "workflow/rules/generator.smk"
include: "workflow/rules/guidance.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/reports.smk"
include: "workflow/rules/phases.smk"
include: "workflow/rules/estimate.smk"
include: "workflow/rules/progress.smk"
include: "workflow/rules/slurm.smk"


rule all:
    default_target: True
    input:
        lambda wildcards: f"reports/{chosen_run()}/index.html",


rule ablations:
    input:
        lambda wildcards: reports(chosen_run(), "all"),
