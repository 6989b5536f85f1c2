rule encode:
    input:
        data="results/{run}/data",
        tokenizer="results/{run}/tokenizer/{label}",
    output:
        directory("results/{run}/codes/{label}"),
    log:
        "results/{run}/logs/encode.{label}.log",
    benchmark:
        "results/{run}/benchmarks/encode.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=720,
    params:
        settings=depends_on("codes.scales", "codes.five_crops", "codes.flip"),
    shell:
        "restok encode --params params/{wildcards.run}.yaml --data {input.data} --tokenizer {input.tokenizer} --out {output} 2> {log}"
