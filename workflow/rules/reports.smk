rule layout:
    # The masks and position ids of Figs. 8 and 9, out of the model's own functions.
    output:
        pattern("layout"),
    log:
        "results/{run}/logs/layout.log",
    benchmark:
        "results/{run}/benchmarks/layout.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: threads("layout")
    resources:
        **asks("layout"),
    params:
        settings=settings("layout"),
    shell:
        "restok layout --params params/{wildcards.run:q}.yaml --out {output:q} 2> {log:q}"


rule table:
    input:
        made_from("table"),
        "params/published.csv",
        "params/orders.csv",
        "params/release_switches.csv",
    output:
        csv="reports/{run}/{table}.csv",
        record="reports/{run}/provenance/{table}.json",
    log:
        "results/{run}/logs/{table}.log",
    benchmark:
        "results/{run}/benchmarks/{table}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        shows=shows("table"),
    shell:
        "restok table {wildcards.table:q} --params params/{wildcards.run:q}.yaml --results results/{wildcards.run:q} "
        "--out {output.csv:q} 2> {log:q}"


rule figure:
    # Figures 5 and 6 show the best checkpoint, which is known only when all are measured.
    input:
        made_from("figure"),
    output:
        png="reports/{run}/{figure}.png",
        pdf="reports/{run}/{figure}.pdf",
        csv="reports/{run}/{figure}.csv",
        record="reports/{run}/provenance/{figure}.json",
    log:
        "results/{run}/logs/{figure}.log",
    benchmark:
        "results/{run}/benchmarks/{figure}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        shows=shows("figure"),
    shell:
        "restok figure {wildcards.figure:q} --params params/{wildcards.run:q}.yaml --results results/{wildcards.run:q} "
        "--out {output.png:q} 2> {log:q}"


rule chart:
    # Of a table, which is its data.
    input:
        "reports/{run}/{chart}.csv",
    output:
        png="reports/{run}/{chart}.png",
        pdf="reports/{run}/{chart}.pdf",
        record="reports/{run}/provenance/{chart}.chart.json",
    log:
        "results/{run}/logs/{chart}.chart.log",
    benchmark:
        "results/{run}/benchmarks/{chart}.chart.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "restok figure {wildcards.chart:q} --table {input:q} --out {output.png:q} 2> {log:q}"


rule page:
    # What the chosen rows show, and of the rest what is there: `snakemake ablations` makes that.
    input:
        lambda wildcards: reports(wildcards.run, choice().rows),
        lambda wildcards: [
            file
            for file in reports(wildcards.run, "all")
            if Path(file).exists() and file not in reports(wildcards.run, choice().rows)
        ],
        "params/published.csv",
        "params/orders.csv",
        "params/release_switches.csv",
        classifier,
    output:
        html="reports/{run}/index.html",
        markdown="reports/{run}/tables.md",
        records=[f"reports/{{run}}/provenance/{name}.json" for name in ("index", "tables")],
    log:
        "results/{run}/logs/page.log",
    benchmark:
        "results/{run}/benchmarks/page.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda wildcards: canonical_json(params_of(wildcards.run), *type(params_of(wildcards.run)).model_fields),
        options=["--params", "params/{run}.yaml", "--results", "results/{run}"],
    shell:
        "restok report {params.options:q} --reports reports/{wildcards.run:q} --out {output.html:q} 2> {log:q}; "
        "restok tables {params.options:q} --out {output.markdown:q} 2>> {log:q}"


rule metrics:
    # What `dvc metrics diff` compares: by row and checkpoint.
    input:
        lambda wildcards: map(str, artifacts.measured(tree_of(wildcards.run), params_of(wildcards.run), choice().rows)),
    output:
        metrics="reports/{run}/metrics.json",
        record="reports/{run}/provenance/metrics.json",
    log:
        "results/{run}/logs/metrics.log",
    benchmark:
        "results/{run}/benchmarks/metrics.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=lambda wildcards: choice().rows,
    shell:
        "restok metrics --params params/{wildcards.run:q}.yaml --results results/{wildcards.run:q} --rows {params.rows:q} "
        "--out {output.metrics:q} 2> {log:q}"


rule chosen:
    # What nobody has to name the run for: the report of the chosen one, beside those of every run in folders of their own.
    input:
        lambda wildcards: f"reports/{chosen_run()}/{wildcards.file}",
    output:
        "reports/{file}",
    log:
        "results/logs/{file}.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "cp {input:q} {output:q} 2> {log:q}"
