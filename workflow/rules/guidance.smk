rule score_guidance:
    input:
        reference=reference,
        classifier=classifier,
        tokenizer=result("tokenizer"),
        generator=result("generator"),
    output:
        pattern("candidate"),
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
        settings=settings("candidate"),
        options=options,
        classifier=optional("classifier"),
    shell:
        "restok score-guidance {params.options} --schedule {wildcards.schedule} --scale {wildcards.scale} "
        "--start {wildcards.start} --reference {input.reference} {params.classifier} --tokenizer {input.tokenizer} "
        "--generator {input.generator} --state runs/{wildcards.trial}/guidance/{wildcards.label}/"
        "{wildcards.schedule}_{wildcards.scale}_{wildcards.start}.safetensors --out {output} 2> {log}"


rule search_guidance:
    input:
        of_tree(Tree.candidates),
    output:
        pattern("guidance"),
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
