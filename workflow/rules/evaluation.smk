rule reference:
    # Measured once, for every evaluation against it.
    input:
        images=referred,
        classifier=classifier,
    output:
        "results/{run}/reference/{name}.safetensors",
    log:
        "results/{run}/logs/reference.{name}.log",
    benchmark:
        "results/{run}/benchmarks/reference.{name}.tsv"
    wildcard_constraints:
        name="validation|published",
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=240,
    params:
        settings=depends_on(*FEATURES, "tokenizer.image_size"),
        classifier=classifier_option,
    shell:
        "restok statistics {input.images} --params params/{wildcards.run}.yaml {params.classifier} "
        "--state runs/{wildcards.run}/reference/{wildcards.name}.safetensors --out {output} 2> {log}"


rule evaluate_reconstruction:
    # Reconstructions go from memory to the metrics; `restok reconstruct` writes them, where somebody wants them.
    input:
        data="results/{run}/data",
        tokenizer="results/{run}/tokenizer/{label}",
        reference=validation,
        classifier=classifier,
    output:
        "results/{run}/evaluation/{label}/reconstruction.json",
    log:
        "results/{run}/logs/evaluate_reconstruction.{label}.log",
    benchmark:
        "results/{run}/benchmarks/evaluate_reconstruction.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=240,
    params:
        settings=depends_on(*RECONSTRUCTION),
        classifier=classifier_option,
    shell:
        "restok evaluate --params params/{wildcards.run}.yaml --tokenizer {input.tokenizer} --originals {input.data} "
        "--reference {input.reference} {params.classifier} "
        "--state runs/{wildcards.run}/evaluation/{wildcards.label}/reconstruction.safetensors --out {output} 2> {log}"


rule evaluate_generation:
    # Samples go from memory to the metrics, and never touch a disk.
    input:
        tokenizer="results/{run}/tokenizer/{label}",
        generator="results/{run}/generator/{label}",
        guidance="results/{run}/guidance/{label}.json",
        reference=reference,
        classifier=classifier,
    output:
        "results/{run}/evaluation/{label}/generation.json",
    log:
        "results/{run}/logs/evaluate_generation.{label}.log",
    benchmark:
        "results/{run}/benchmarks/evaluate_generation.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=480,
    params:
        settings=depends_on(*GENERATION),
        classifier=classifier_option,
    shell:
        "restok evaluate --params params/{wildcards.run}.yaml --tokenizer {input.tokenizer} --generator {input.generator} "
        "--guidance {input.guidance} --reference {input.reference} {params.classifier} "
        "--state runs/{wildcards.run}/evaluation/{wildcards.label}/generation.safetensors --out {output} 2> {log}"


rule panel:
    input:
        data="results/{run}/data",
        tokenizer="results/{run}/tokenizer/{label}",
    output:
        "results/{run}/panel/{label}.npz",
    log:
        "results/{run}/logs/panel.{label}.log",
    benchmark:
        "results/{run}/benchmarks/panel.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=30,
    shell:
        "restok panel --data {input.data} --tokenizer {input.tokenizer} --out {output} 2> {log}"


rule sample:
    # What Fig. 6 shows.
    input:
        tokenizer="results/{run}/tokenizer/{label}",
        generator="results/{run}/generator/{label}",
        guidance="results/{run}/guidance/{label}.json",
    output:
        "results/{run}/samples/{label}.npz",
    log:
        "results/{run}/logs/sample.{label}.log",
    benchmark:
        "results/{run}/benchmarks/sample.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=30,
    params:
        settings=depends_on("seed", "sampling"),
    shell:
        "restok sample --params params/{wildcards.run}.yaml --tokenizer {input.tokenizer} --generator {input.generator} "
        "--guidance {input.guidance} --per-class 8 --classes 20 --out {output} 2> {log}"
