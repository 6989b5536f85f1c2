rule train_generator:
    input:
        codes=result("codes"),
        tokenizer=result("tokenizer"),
    output:
        directory(pattern("generator")),
    log:
        "results/{run}/logs/{trial}/train_generator.{label}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/train_generator.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("generator")
    resources:
        **asks("generator"),
    params:
        settings=settings("generator"),
        options=options,
    shell:
        "{resources.launch} restok train-generator {params.options:q} --codes {input.codes:q} --tokenizer {input.tokenizer:q} "
        "--run runs/{wildcards.run:q}/generator/{wildcards.trial:q}/{wildcards.label:q} --out {output:q} 2> {log:q}"
