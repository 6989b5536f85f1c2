rule prepare:
    output:
        directory(pattern("data")),
    log:
        "results/{run}/logs/prepare.log",
    benchmark:
        "results/{run}/benchmarks/prepare.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        runtime=240,
    params:
        settings=settings("data"),
    shell:
        "restok prepare --params params/{wildcards.run:q}.yaml --run runs/{wildcards.run:q}/data --out {output:q} 2> {log:q}"


rule train_classifier:
    input:
        data=result("data"),
    output:
        directory(pattern("classifier")),
    log:
        "results/{run}/logs/train_classifier.log",
    benchmark:
        "results/{run}/benchmarks/train_classifier.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=60,
    params:
        settings=settings("classifier"),
    shell:
        "restok train-classifier --params params/{wildcards.run:q}.yaml --data {input.data:q} "
        "--run runs/{wildcards.run:q}/classifier --out {output:q} 2> {log:q}"
