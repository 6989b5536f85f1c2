rule doctor:
    # Before all else, where a run needs anything from outside the clone. That it ran again makes nothing else run again.
    output:
        estimate.DOCTOR,
    log:
        "results/{run}/logs/doctor.log",
    benchmark:
        "results/{run}/benchmarks/doctor.tsv"
    priority: 20
    conda:
        "../../environment.yml"
    threads: threads("doctor")
    resources:
        **asks("doctor"),
    params:
        settings=lambda wildcards: digest_of(wildcards.run),
        missing=lambda wildcards: missing(wildcards.run),
    shell:
        "restok doctor --params params/{wildcards.run:q}.yaml --out {output:q} 2> {log:q}"
