rule encode_part:
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
    output:
        temp(directory(part_pattern("codes"))),
    log:
        "results/{run}/logs/{trial}/encode.{label}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/encode.{label}.{part}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("codes")
    resources:
        **asks("codes"),
    params:
        settings=settings("codes"),
        options=options,
        part=part,
    shell:
        "restok encode {params.options:q} --part {params.part:q} --data {input.data:q} --tokenizer {input.tokenizer:q} "
        "--run runs/{wildcards.run:q}/codes/{wildcards.trial:q}/{wildcards.label:q} --out {output:q} 2> {log:q}"


rule encode:
    # Of several parts, which it gathers without a GPU, or of one, which it encodes itself.
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
        parts=parts("codes", gather.encode("{scatteritem}")),
    output:
        directory(pattern("codes")),
    log:
        "results/{run}/logs/{trial}/encode.{label}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/encode.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("codes")
    resources:
        **asks("codes"),
    params:
        settings=settings("codes"),
        options=options,
    shell:
        "restok encode {input.parts:q} {params.options:q} --data {input.data:q} --tokenizer {input.tokenizer:q} "
        "--run runs/{wildcards.run:q}/codes/{wildcards.trial:q}/{wildcards.label:q} --out {output:q} 2> {log:q}"
