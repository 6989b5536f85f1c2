"""The phases of the chain, each a target for the chosen run: what a stage of dvc.yaml calls."""

from restok.dvc import require_times_kept

if workflow.is_main_process:
    require_times_kept()


rule data:
    input:
        kept("data"),


rule tokenizers:
    input:
        kept("tokenizers"),


rule codes:
    input:
        kept("codes"),


rule generators:
    input:
        kept("generators"),


rule evaluation:
    input:
        kept("evaluation"),


rule reports:
    input:
        lambda wildcards: [f"reports/{chosen_run()}/{file}" for file in artifacts.PAGE],


rule rows:
    # What the rows of the sheet add to the parameter file, which DVC reads: it knows no tables.
    output:
        "results/{run}/rows.json",
    log:
        "results/{run}/logs/rows.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=lambda wildcards: choice().rows,
        settings=lambda wildcards: digest_of(wildcards.run),
    shell:
        "restok rows --params params/{wildcards.run:q}.yaml --rows {params.rows:q} --out {output:q} 2> {log:q}"
