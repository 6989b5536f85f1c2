rule layout:
    # The masks and position ids of Figs. 8 and 9, out of the model's own functions.
    output:
        "results/{run}/layout.npz",
    log:
        "results/{run}/logs/layout.log",
    benchmark:
        "results/{run}/benchmarks/layout.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=depends_on("tokenizer", "generator"),
    shell:
        "restok layout --params params/{wildcards.run}.yaml --out {output} 2> {log}"


rule table:
    input:
        inputs(TABLE_INPUTS),
        published="params/published.csv",
        orders="params/orders.csv",
        switches="params/release_switches.csv",
    output:
        "reports/{run}/table{name}.csv",
    log:
        "results/{run}/logs/table{name}.log",
    benchmark:
        "results/{run}/benchmarks/table{name}.tsv"
    wildcard_constraints:
        name=r"\d+",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=depends_on("seed", "data", *trials.MODELS, "experiments"),
        entries=lambda wildcards: entries(f"table{wildcards.name}")(wildcards),
    shell:
        "restok table {wildcards.name} --params params/{wildcards.run}.yaml --results results/{wildcards.run} --out {output} 2> {log}"


use rule table as release_switches with:
    output:
        "reports/{run}/{name}.csv",
    log:
        "results/{run}/logs/{name}.log",
    benchmark:
        "results/{run}/benchmarks/{name}.tsv"
    wildcard_constraints:
        name="release_switches",
    params:
        settings=depends_on("seed", "data", *trials.MODELS, "experiments"),
        entries=entries("release_switches"),


rule figure:
    # Figures 5 and 6 show the best checkpoint, which is known only when all are measured.
    input:
        inputs(FIGURE_INPUTS),
    output:
        png="reports/{run}/{prefix}{name}.png",
        pdf="reports/{run}/{prefix}{name}.pdf",
        csv="reports/{run}/{prefix}{name}.csv",
    log:
        "results/{run}/logs/{prefix}{name}.log",
    benchmark:
        "results/{run}/benchmarks/{prefix}{name}.tsv"
    wildcard_constraints:
        prefix="fig|",
        name="5|6|7|8|9|codebook|guidance",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=depends_on("tokenizer_training.checkpoints", "tokenizer.codebook_size"),
        entries=lambda wildcards: entries(wildcards.prefix + wildcards.name)(wildcards),
    shell:
        "restok figure {wildcards.name} --params params/{wildcards.run}.yaml --results results/{wildcards.run} "
        "--out {output.png} 2> {log}"


rule chart:
    # Of an ablation table, which is its data.
    input:
        "reports/{run}/table{number}.csv",
    output:
        png="reports/{run}/table{number}.png",
        pdf="reports/{run}/table{number}.pdf",
    log:
        "results/{run}/logs/chart{number}.log",
    benchmark:
        "results/{run}/benchmarks/chart{number}.tsv"
    wildcard_constraints:
        number="[2-5]",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "restok figure table{wildcards.number} --table {input} --out {output.png} 2> {log}"


rule tables:
    input:
        expand("reports/{{run}}/{file}", file=TABLES),
    output:
        "reports/{run}/tables.md",
    log:
        "results/{run}/logs/tables.log",
    benchmark:
        "results/{run}/benchmarks/tables.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "restok tables --params params/{wildcards.run}.yaml --reports reports/{wildcards.run} --out {output} 2> {log}"


rule report:
    input:
        lambda wildcards: reports(wildcards.run),
        "params/published.csv",
        "params/orders.csv",
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
