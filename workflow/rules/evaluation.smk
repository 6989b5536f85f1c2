rule reference:
    # Measured once, for every evaluation against it.
    input:
        ancient(examined),
        images=referred,
        classifier=classifier,
    output:
        pattern("reference"),
    log:
        "results/{run}/logs/reference.{name}.log",
    benchmark:
        "results/{run}/benchmarks/reference.{name}.tsv"
    wildcard_constraints:
        name=artifacts.NAMES["name"],
    conda:
        "../../environment.yml"
    threads: threads("reference")
    resources:
        **asks("reference"),
    params:
        settings=settings("reference"),
        classifier=optional("classifier"),
    shell:
        "restok statistics {input.images:q} --params params/{wildcards.run:q}.yaml {params.classifier:q} "
        "--state runs/{wildcards.run:q}/reference/{wildcards.name:q}.safetensors --out {output:q} 2> {log:q}"


rule evaluate_reconstruction_part:
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
        classifier=classifier,
    output:
        temp(part_pattern("reconstruction", ".safetensors")),
    log:
        "results/{run}/logs/{trial}/evaluate_reconstruction.{label}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/evaluate_reconstruction.{label}.{part}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("reconstruction")
    resources:
        **asks("reconstruction"),
    params:
        settings=settings("reconstruction"),
        options=options,
        part=part,
        classifier=optional("classifier"),
    shell:
        "restok statistics {params.options:q} --part {params.part:q} --tokenizer {input.tokenizer:q} "
        "--originals {input.data:q} {params.classifier:q} "
        "--state runs/{wildcards.run:q}/evaluation/{wildcards.trial:q}/{wildcards.label:q}/reconstruction.safetensors "
        "--out {output:q} 2> {log:q}"


rule evaluate_reconstruction:
    # Reconstructions go from memory to the metrics; `restok reconstruct` writes them, where somebody wants them. Of several
    # parts, which were measured before, it takes the sum.
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
        reference=lambda wildcards: reference(wildcards, "validation"),
        classifier=classifier,
        parts=parts("reconstruction", gather.evaluate("{scatteritem}"), ".safetensors"),
    output:
        pattern("reconstruction"),
    log:
        "results/{run}/logs/{trial}/evaluate_reconstruction.{label}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/evaluate_reconstruction.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("reconstruction")
    resources:
        **asks("reconstruction"),
    params:
        settings=settings("reconstruction"),
        options=options,
        parts=repeated("samples", "parts"),
        classifier=optional("classifier"),
    shell:
        "restok evaluate {params.options:q} {params.parts:q} --tokenizer {input.tokenizer:q} --originals {input.data:q} "
        "--reference {input.reference:q} {params.classifier:q} "
        "--state runs/{wildcards.run:q}/evaluation/{wildcards.trial:q}/{wildcards.label:q}/reconstruction.safetensors "
        "--out {output:q} 2> {log:q}"


# Samples go from memory to the metrics, and never touch a disk: those with the guidance of the row, and those without.
for stage, guided in (("generation", True), ("unguided", False)):

    rule:
        name:
            f"evaluate_{stage}_part"
        input:
            tokenizer=result("tokenizer"),
            generator=result("generator"),
            guidance=guidance if guided else [],
            classifier=classifier,
        output:
            temp(part_pattern(stage, ".safetensors")),
        log:
            f"results/{{run}}/logs/{{trial}}/evaluate_{stage}.{{label}}.{{part}}.log",
        benchmark:
            f"results/{{run}}/benchmarks/{{trial}}/evaluate_{stage}.{{label}}.{{part}}.tsv"
        conda:
            "../../environment.yml"
        threads: threads(stage)
        resources:
            **asks(stage),
        params:
            settings=settings(stage),
            options=options,
            part=part,
            guidance=optional("guidance") if guided else "--unguided",
            classifier=optional("classifier"),
        shell:
            "restok statistics {params.options:q} --part {params.part:q} --tokenizer {input.tokenizer:q} "
            "--generator {input.generator:q} {params.guidance:q} {params.classifier:q} "
            "--state runs/{wildcards.run:q}/evaluation/{wildcards.trial:q}/{wildcards.label:q}/"
            f"{stage}.safetensors "
            "--out {output:q} 2> {log:q}"

    rule:
        name:
            f"evaluate_{stage}"
        input:
            tokenizer=result("tokenizer"),
            generator=result("generator"),
            guidance=guidance if guided else [],
            reference=reference,
            classifier=classifier,
            parts=parts(stage, gather.evaluate("{scatteritem}"), ".safetensors"),
        output:
            pattern(stage),
        log:
            f"results/{{run}}/logs/{{trial}}/evaluate_{stage}.{{label}}.log",
        benchmark:
            f"results/{{run}}/benchmarks/{{trial}}/evaluate_{stage}.{{label}}.tsv"
        conda:
            "../../environment.yml"
        threads: threads(stage)
        resources:
            **asks(stage),
        params:
            settings=settings(stage),
            options=options,
            parts=repeated("samples", "parts"),
            guidance=optional("guidance") if guided else "--unguided",
            classifier=optional("classifier"),
        shell:
            "restok evaluate {params.options:q} {params.parts:q} --tokenizer {input.tokenizer:q} --generator {input.generator:q} "
            "{params.guidance:q} --reference {input.reference:q} {params.classifier:q} "
            "--state runs/{wildcards.run:q}/evaluation/{wildcards.trial:q}/{wildcards.label:q}/"
            f"{stage}.safetensors "
            "--out {output:q} 2> {log:q}"


rule panel:
    input:
        data=result("data"),
        tokenizer=result("tokenizer"),
    output:
        pattern("panel"),
    log:
        "results/{run}/logs/{trial}/panel.{label}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/panel.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("panel")
    resources:
        **asks("panel"),
    params:
        settings=settings("panel"),
        options=options,
    shell:
        "restok panel {params.options:q} --data {input.data:q} --tokenizer {input.tokenizer:q} --out {output:q} 2> {log:q}"


rule sample:
    # What Fig. 6 shows.
    input:
        tokenizer=result("tokenizer"),
        generator=result("generator"),
        guidance=guidance,
    output:
        pattern("samples"),
    log:
        "results/{run}/logs/{trial}/sample.{label}.log",
    benchmark:
        "results/{run}/benchmarks/{trial}/sample.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: threads("samples")
    resources:
        **asks("samples"),
    params:
        settings=settings("samples"),
        options=options,
        classes=pictured,
        guidance=optional("guidance"),
    shell:
        "restok sample {params.options:q} --tokenizer {input.tokenizer:q} --generator {input.generator:q} "
        "{params.guidance:q} --per-class 8 --classes {params.classes:q} --out {output:q} 2> {log:q}"
