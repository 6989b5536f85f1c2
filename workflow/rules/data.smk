rule prepare_part:
    input:
        ancient(examined),
        classes=classes,
    output:
        temp(directory(part_pattern("data"))),
    log:
        "results/{run}/logs/prepare.{part}.log",
    benchmark:
        "results/{run}/benchmarks/prepare.{part}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("data")
    resources:
        **asks("data"),
    params:
        settings=settings("data"),
        part=part,
    shell:
        "restok prepare --params params/{wildcards.run:q}.yaml --part {params.part:q} --out {output:q} 2> {log:q}"


rule prepare:
    # Of several parts, which it gathers, or of one, which it packs itself.
    input:
        ancient(examined),
        classes=classes,
        parts=parts("data", gather.prepare("{scatteritem}")),
    output:
        directory(pattern("data")),
    log:
        "results/{run}/logs/prepare.log",
    benchmark:
        "results/{run}/benchmarks/prepare.tsv"
    conda:
        "../../environment.yml"
    threads: threads("data")
    resources:
        **asks("data"),
    params:
        settings=settings("data"),
    shell:
        "restok prepare {input.parts:q} --params params/{wildcards.run:q}.yaml --run runs/{wildcards.run:q}/data "
        "--out {output:q} 2> {log:q}"


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
    threads: threads("classifier")
    resources:
        **asks("classifier"),
    params:
        settings=settings("classifier"),
    shell:
        "restok train-classifier --params params/{wildcards.run:q}.yaml --data {input.data:q} "
        "--run runs/{wildcards.run:q}/classifier --out {output:q} 2> {log:q}"
