rule encode:
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
    output:
        directory(pattern("codes")),
    log:
        "results/{trial}/logs/encode.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/encode.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=720,
    params:
        settings=settings("codes"),
        options=options,
    shell:
        "restok encode {params.options:q} --data {input.data:q} --tokenizer {input.tokenizer:q} "
        "--run runs/{wildcards.trial:q}/codes/{wildcards.label:q} --out {output:q} 2> {log:q}"
