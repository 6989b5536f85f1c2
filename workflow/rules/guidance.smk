rule score_guidance:
    input:
        reference=reference,
        classifier=classifier,
        tokenizer=tokenizer,
        generator=generator,
    output:
        "results/{trial}/guidance/{label}/{schedule}_{scale}_{start}.json",
    log:
        "results/{trial}/logs/score_guidance.{label}.{schedule}_{scale}_{start}.log",
    benchmark:
        "results/{trial}/benchmarks/score_guidance.{label}.{schedule}_{scale}_{start}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=240,
    params:
        settings=depends_on(*trials.CANDIDATE),
        options=options,
        classifier=classifier_option,
    shell:
        "restok score-guidance {params.options} --schedule {wildcards.schedule} --scale {wildcards.scale} "
        "--start {wildcards.start} --reference {input.reference} {params.classifier} --tokenizer {input.tokenizer} "
        "--generator {input.generator} --state runs/{wildcards.trial}/guidance/{wildcards.label}/"
        "{wildcards.schedule}_{wildcards.scale}_{wildcards.start}.safetensors --out {output} 2> {log}"


rule search_guidance:
    input:
        candidates,
    output:
        "results/{trial}/guidance/{label}.json",
    log:
        "results/{trial}/logs/search_guidance.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/search_guidance.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "restok search-guidance {input} --out {output} 2> {log}"
