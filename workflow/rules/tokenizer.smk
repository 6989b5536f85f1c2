rule train_tokenizer:
    # One job a checkpoint, so that what follows a checkpoint starts while training goes on. Unfinished runs keep their
    # states below runs/, which Snakemake does not know and so does not delete.
    input:
        data="results/{run}/data",
        classifier=classifier,
        previous=previous_checkpoint,
    output:
        directory("results/{run}/tokenizer/{label}"),
    log:
        "results/{run}/logs/train_tokenizer.{label}.log",
    benchmark:
        "results/{run}/benchmarks/train_tokenizer.{label}.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=2880,
    params:
        settings=depends_on("seed", "data", "tokenizer", "tokenizer_training", "objective"),
        classifier=classifier_option,
        previous=lambda wildcards, input: f"--previous {input.previous}" if input.previous else "",
    shell:
        "restok train-tokenizer --params params/{wildcards.run}.yaml --checkpoint {wildcards.label} --data {input.data} "
        "{params.classifier} {params.previous} --run runs/{wildcards.run}/tokenizer/{wildcards.label} --out {output} 2> {log}"
