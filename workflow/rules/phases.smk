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
