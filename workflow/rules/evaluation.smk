rule reconstruct:
    input:
        data="results/{run}/data",
        tokenizer="results/{run}/tokenizer/{label}",
    output:
        images="results/{run}/reconstructions/{label}.npz",
        panel="results/{run}/panel/{label}.npz",
    log:
        "results/{run}/logs/reconstruct.{label}.log",
    benchmark:
        "results/{run}/benchmarks/reconstruct.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=240,
    shell:
        "restok reconstruct --params params/{wildcards.run}.yaml --data {input.data} --tokenizer {input.tokenizer} "
        "--out {output.images} --panel {output.panel} 2> {log}"


rule sample:
    input:
        tokenizer="results/{run}/tokenizer/{label}",
        generator="results/{run}/generator/{label}",
        guidance="results/{run}/guidance/{label}.json",
    output:
        "results/{run}/samples/{label}.npz",
    log:
        "results/{run}/logs/sample.{label}.log",
    benchmark:
        "results/{run}/benchmarks/sample.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=480,
    params:
        settings=depends_on("seed", "sampling", "evaluation.samples_per_class"),
    shell:
        "restok sample --params params/{wildcards.run}.yaml --tokenizer {input.tokenizer} --generator {input.generator} "
        "--guidance {input.guidance} --out {output} 2> {log}"


rule evaluate:
    input:
        samples=measured,
        data="results/{run}/data",
        classifier=classifier,
    output:
        "results/{run}/evaluation/{label}/{protocol}.json",
    log:
        "results/{run}/logs/evaluate.{label}.{protocol}.log",
    benchmark:
        "results/{run}/benchmarks/evaluate.{label}.{protocol}.tsv"
    wildcard_constraints:
        protocol="reconstruction|generation",
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=240,
    params:
        settings=lambda wildcards: depends_on(*MEASURES[wildcards.protocol])(wildcards),
        classifier=classifier_option,
    shell:
        "restok evaluate --params params/{wildcards.run}.yaml --samples {input.samples} --data {input.data} {params.classifier} "
        "--out {output} 2> {log}"
