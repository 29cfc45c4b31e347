# For whoever owns the images: the kept ids and the suspect labels as CSV, over the seeds.


rule suspects:
    input:
        src=sources("suspects"),
        images=rules.prepare.output.images,
        manifests=expand(
            f"{RESULTS}/data/seed{{seed}}/manifest.{{end}}",
            seed=JUDGES,
            end=["parquet", "json"],
        ),
        meta=expand(
            [rules.meta_train.output.weights, rules.meta_train.output.model],
            seed=JUDGES,
        ),
        kept=expand(
            rules.select.output.kept,
            seed=JUDGES,
            method=[method for method in METHODS if method == "meta_weight"],
            ratio=RATIOS,
        ),
    output:
        kept=f"{RESULTS}/suspects/kept.csv",
        labels=f"{RESULTS}/suspects/suspect_labels.csv",
        summary=f"{RESULTS}/suspects/summary.json",
    log:
        f"{LOGS}/suspects.log",
    benchmark:
        f"{LOGS}/benchmarks/suspects.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("suspects"),
        settings=SETTINGS,
        results=subpath(output.kept, ancestor=2),
        folder=subpath(output.kept, parent=True),
        seeds=",".join(map(str, JUDGES)),
    shell:
        "exec python -m sama.cli suspects --config {params.settings} --images {input.images} --meta {params.results}/meta --kept {params.results}/kept"
        " --out {params.folder} --seeds {params.seeds} &> {log}"


rule phase_suspects:
    input:
        rules.suspects.output,
