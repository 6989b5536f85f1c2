rule train_generator:
    input:
        codes="results/{run}/codes/{label}",
        tokenizer="results/{run}/tokenizer/{label}",
    output:
        directory("results/{run}/generator/{label}"),
    log:
        "results/{run}/logs/train_generator.{label}.log",
    benchmark:
        "results/{run}/benchmarks/train_generator.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=2880,
    params:
        settings=depends_on("seed", "generator", "generator_training"),
    shell:
        "restok train-generator --params params/{wildcards.run}.yaml --codes {input.codes} --tokenizer {input.tokenizer} "
        "--run runs/{wildcards.run}/generator/{wildcards.label} --out {output} 2> {log}"
