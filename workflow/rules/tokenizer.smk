rule train_tokenizer:
    # One job a checkpoint, so that what follows a checkpoint starts while training goes on. Unfinished runs keep their
    # states below runs/, which Snakemake does not know and so does not delete.
    input:
        ancient(examined),
        data=result("data"),
        classifier=classifier,
        previous=of_tree(Tree.previous),
    output:
        directory(pattern("tokenizer")),
    log:
        "results/{run}/logs/{trial}/train_tokenizer.{label}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/train_tokenizer.{label}.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: threads("tokenizer")
    resources:
        **asks("tokenizer"),
    params:
        settings=settings("tokenizer"),
        options=options,
        classifier=optional("classifier"),
        previous=optional("previous"),
    shell:
        "{resources.launch} restok train-tokenizer {params.options:q} --checkpoint {wildcards.label:q} --data {input.data:q} "
        "{params.classifier:q} {params.previous:q} --run runs/{wildcards.run:q}/tokenizer/{wildcards.trial:q}/{wildcards.label:q} "
        "--out {output:q} 2> {log:q}"
