rule train_generator:
    input:
        codes=result("codes"),
        tokenizer=result("tokenizer"),
    output:
        directory(pattern("generator")),
    log:
        "results/{trial}/logs/train_generator.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/train_generator.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=2880,
    params:
        settings=settings("generator"),
        options=options,
    shell:
        "restok train-generator {params.options} --codes {input.codes} --tokenizer {input.tokenizer} "
        "--run runs/{wildcards.trial}/generator/{wildcards.label} --out {output} 2> {log}"
