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
        "restok score-guidance {params.options:q} --schedule {wildcards.schedule:q} --scale {wildcards.scale:q} "
        "--start {wildcards.start:q} --reference {input.reference:q} {params.classifier:q} --tokenizer {input.tokenizer:q} "
        "--generator {input.generator:q} --state runs/{wildcards.trial:q}/guidance/{wildcards.label:q}/"
        "{wildcards.schedule:q}_{wildcards.scale:q}_{wildcards.start:q}.safetensors --out {output:q} 2> {log:q}"


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
        "restok search-guidance {input:q} --out {output:q} 2> {log:q}"
