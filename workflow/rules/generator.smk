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
    threads: threads("generator")
    resources:
        **asks("generator"),
    params:
        settings=settings("generator"),
        options=options,
    shell:
        "{resources.launch} restok train-generator {params.options:q} --codes {input.codes:q} --tokenizer {input.tokenizer:q} "
        "--run runs/{wildcards.trial:q}/generator/{wildcards.label:q} --out {output:q} 2> {log:q}"
