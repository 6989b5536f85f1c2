rule prepare:
    output:
        directory("results/{run}/data"),
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
        settings=data_settings,
    shell:
        "restok prepare --params params/{wildcards.run}.yaml --out {output} 2> {log}"


rule train_classifier:
    input:
        data="results/{run}/data",
    output:
        directory("results/{run}/classifier"),
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
        settings=depends_on("seed", "classifier", "data.crop_scale", "data.flip", "tokenizer.image_size"),
    shell:
        "restok train-classifier --params params/{wildcards.run}.yaml --data {input.data} --out {output} 2> {log}"
