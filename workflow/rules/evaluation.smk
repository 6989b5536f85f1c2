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
        settings=depends_on(*trials.FEATURES, "tokenizer.image_size"),
        classifier=classifier_option,
    shell:
        "restok statistics {input.images} --params params/{wildcards.run}.yaml {params.classifier} "
        "--state runs/{wildcards.run}/reference/{wildcards.name}.safetensors --out {output} 2> {log}"


rule evaluate_reconstruction:
    # Reconstructions go from memory to the metrics; `restok reconstruct` writes them, where somebody wants them.
    input:
        data=of_run("data"),
        tokenizer=tokenizer,
        reference=of_run("reference/validation.safetensors"),
        classifier=classifier,
    output:
        "results/{trial}/evaluation/{label}/reconstruction.json",
    log:
        "results/{trial}/logs/evaluate_reconstruction.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/evaluate_reconstruction.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=240,
    params:
        settings=depends_on(*trials.RECONSTRUCTION),
        options=options,
        classifier=classifier_option,
    shell:
        "restok evaluate {params.options} --tokenizer {input.tokenizer} --originals {input.data} "
        "--reference {input.reference} {params.classifier} "
        "--state runs/{wildcards.trial}/evaluation/{wildcards.label}/reconstruction.safetensors --out {output} 2> {log}"


rule evaluate_generation:
    # Samples go from memory to the metrics, and never touch a disk.
    input:
        tokenizer=tokenizer,
        generator=generator,
        guidance=guidance,
        reference=reference,
        classifier=classifier,
    output:
        "results/{trial}/evaluation/{label}/generation.json",
    log:
        "results/{trial}/logs/evaluate_generation.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/evaluate_generation.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=480,
    params:
        settings=depends_on(*trials.GENERATION),
        options=options,
        guidance=guidance_option,
        classifier=classifier_option,
    shell:
        "restok evaluate {params.options} --tokenizer {input.tokenizer} --generator {input.generator} "
        "{params.guidance} --reference {input.reference} {params.classifier} "
        "--state runs/{wildcards.trial}/evaluation/{wildcards.label}/generation.safetensors --out {output} 2> {log}"


rule panel:
    input:
        data=of_run("data"),
        tokenizer=tokenizer,
    output:
        "results/{trial}/panel/{label}.npz",
    log:
        "results/{trial}/logs/panel.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/panel.{label}.tsv"
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
        tokenizer=tokenizer,
        generator=generator,
        guidance=guidance,
    output:
        "results/{trial}/samples/{label}.npz",
    log:
        "results/{trial}/logs/sample.{label}.log",
    benchmark:
        "results/{trial}/benchmarks/sample.{label}.tsv"
    conda:
        "../../environment.yml"
    threads: with_workers
    resources:
        mem_mb=memory,
        gpu=gpus,
        runtime=30,
    params:
        settings=depends_on(*trials.DRAWING, "sampling.guidance"),
        options=options,
        guidance=guidance_option,
    shell:
        "restok sample {params.options} --tokenizer {input.tokenizer} --generator {input.generator} "
        "{params.guidance} --per-class 8 --classes 20 --out {output} 2> {log}"
