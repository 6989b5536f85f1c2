rule encode_part:
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
    output:
        temp(directory(part_pattern("codes"))),
    log:
        "results/{trial}/logs/encode.{label}.{part}.log",
    benchmark:
        "results/{trial}/benchmarks/encode.{label}.{part}.tsv"
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
        "--run runs/{wildcards.trial:q}/codes/{wildcards.label:q} --out {output:q} 2> {log:q}"


rule encode:
    # Of several parts, which it gathers without a GPU, or of one, which it encodes itself.
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
        parts=parts("codes", gather.encode("{scatteritem}")),
    output:
        directory(pattern("codes")),
    log:
        "results/{trial}/logs/encode.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/encode.{label}.tsv"
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
        "--run runs/{wildcards.trial:q}/codes/{wildcards.label:q} --out {output:q} 2> {log:q}"
