rule table1:
    input:
        evaluations,
        of_every_checkpoint("results/{run}/generator/{label}"),
        published="params/published.csv",
    output:
        "reports/{run}/table1.csv",
    log:
        "results/{run}/logs/table1.log",
    benchmark:
        "results/{run}/benchmarks/table1.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=depends_on("tokenizer", "tokenizer_training.checkpoints", "generator"),
    shell:
        "restok table 1 --params params/{wildcards.run}.yaml --results results/{wildcards.run} --published {input.published} "
        "--out {output} 2> {log}"


rule table6:
    input:
        of_every_checkpoint("results/{run}/guidance/{label}.json"),
    output:
        "reports/{run}/table6.csv",
    log:
        "results/{run}/logs/table6.log",
    benchmark:
        "results/{run}/benchmarks/table6.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=depends_on("tokenizer_training.checkpoints"),
    shell:
        "restok table 6 --params params/{wildcards.run}.yaml --results results/{wildcards.run} --out {output} 2> {log}"


rule table9:
    output:
        "reports/{run}/table9.csv",
    log:
        "results/{run}/logs/table9.log",
    benchmark:
        "results/{run}/benchmarks/table9.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=depends_on("tokenizer.latents", "tokenizer.keep_minimum", "tokenizer.drop_probability"),
    shell:
        "restok table 9 --params params/{wildcards.run}.yaml --results results/{wildcards.run} --out {output} 2> {log}"


rule picture:
    # Figures 5 and 6 show the best checkpoint, which is known only when all are measured.
    input:
        evaluations,
        lambda wildcards: of_every_checkpoint(FIGURE_INPUTS[wildcards.number])(wildcards),
        "results/{run}/data",
    output:
        "reports/{run}/fig{number}.png",
    log:
        "results/{run}/logs/fig{number}.log",
    benchmark:
        "results/{run}/benchmarks/fig{number}.tsv"
    wildcard_constraints:
        number="5|6",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=depends_on("tokenizer_training.checkpoints"),
    shell:
        "restok figure {wildcards.number} --params params/{wildcards.run}.yaml --results results/{wildcards.run} "
        "--out {output} 2> {log}"


rule plot:
    input:
        evaluations,
    output:
        png="reports/{run}/{plot}.png",
        csv="reports/{run}/{plot}.csv",
    log:
        "results/{run}/logs/{plot}.log",
    benchmark:
        "results/{run}/benchmarks/{plot}.tsv"
    wildcard_constraints:
        plot="fig7|codebook",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=depends_on("tokenizer_training.checkpoints", "tokenizer.codebook_size"),
        name=lambda wildcards: wildcards.plot.removeprefix("fig"),
    shell:
        "restok figure {params.name} --params params/{wildcards.run}.yaml --results results/{wildcards.run} "
        "--out {output.png} 2> {log}"


rule report:
    input:
        multiext("reports/{run}/table", "1.csv", "6.csv", "9.csv"),
        multiext("reports/{run}/fig", "5.png", "6.png", "7.png", "7.csv"),
        multiext("reports/{run}/codebook", ".png", ".csv"),
        classifier,
    output:
        "reports/{run}/index.html",
    log:
        "results/{run}/logs/report.log",
    benchmark:
        "results/{run}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda wildcards: depends_on(*type(params_of(wildcards.run)).model_fields)(wildcards),
    shell:
        "restok report --params params/{wildcards.run}.yaml --results results/{wildcards.run} --reports reports/{wildcards.run} "
        "--out {output} 2> {log}"
