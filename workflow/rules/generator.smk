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
    threads: model_threads
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=2880,
    params:
        settings=settings("generator"),
        options=options,
    shell:
        "restok train-generator {params.options:q} --codes {input.codes:q} --tokenizer {input.tokenizer:q} "
        "--run runs/{wildcards.trial:q}/generator/{wildcards.label:q} --out {output:q} 2> {log:q}"
