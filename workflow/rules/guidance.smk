rule score_guidance:
    input:
        reference=reference,
        classifier=classifier,
        tokenizer=result("tokenizer"),
        generator=result("generator"),
    output:
        pattern("candidate"),
    log:
        "results/{run}/logs/{trial}/score_guidance.{label}.{schedule}_{scale}_{start}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/score_guidance.{label}.{schedule}_{scale}_{start}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("candidate")
    resources:
        **asks("candidate"),
    params:
        settings=settings("candidate"),
        options=options,
        classifier=optional("classifier"),
    shell:
        "restok score-guidance {params.options:q} --schedule {wildcards.schedule:q} --scale {wildcards.scale:q} "
        "--start {wildcards.start:q} --reference {input.reference:q} {params.classifier:q} --tokenizer {input.tokenizer:q} "
        "--generator {input.generator:q} --state runs/{wildcards.run:q}/guidance/{wildcards.trial:q}/{wildcards.label:q}/"
        "{wildcards.schedule:q}_{wildcards.scale:q}_{wildcards.start:q}.safetensors --out {output:q} 2> {log:q}"


rule score_finalist:
    # Which candidate this is, its verb finds: the one of this rank.
    input:
        candidates=of_tree(Tree.candidates),
        reference=reference,
        classifier=classifier,
        tokenizer=result("tokenizer"),
        generator=result("generator"),
    output:
        pattern("finalist"),
    log:
        "results/{run}/logs/{trial}/score_finalist.{label}.{rank}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/score_finalist.{label}.{rank}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("finalist")
    resources:
        **asks("finalist"),
    params:
        settings=settings("finalist"),
        options=options,
        classifier=optional("classifier"),
    shell:
        "restok score-finalist {input.candidates:q} {params.options:q} --rank {wildcards.rank:q} "
        "--reference {input.reference:q} {params.classifier:q} --tokenizer {input.tokenizer:q} "
        "--generator {input.generator:q} "
        "--state runs/{wildcards.run:q}/guidance/{wildcards.trial:q}/{wildcards.label:q}/finalists/{wildcards.rank:q}.safetensors "
        "--out {output:q} 2> {log:q}"


rule search_guidance:
    input:
        candidates=of_tree(Tree.candidates),
        finalists=of_tree(Tree.finalists),
    output:
        pattern("guidance"),
    log:
        "results/{run}/logs/{trial}/search_guidance.{label}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/search_guidance.{label}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: threads("guidance")
    resources:
        **asks("guidance"),
    params:
        finalists=repeated("finalist", "finalists"),
    shell:
        "restok search-guidance {input.candidates:q} {params.finalists:q} --out {output:q} 2> {log:q}"
