# Images, splits, planted noise and manifests of all seeds; the images are decoded once.


rule prepare:
    input:
        src=sources("prepare"),
    output:
        images=IMAGES,
        copied=(
            f"{RESULTS}/data/images.bin"
            if ENCODED and CONFIG.data.source == "parquet"
            else []
        ),
        dataset=f"{RESULTS}/data/dataset.json",
        manifests=expand(f"{RESULTS}/data/seed{{seed}}/manifest.parquet", seed=SEEDS),
        facts=expand(f"{RESULTS}/data/seed{{seed}}/manifest.json", seed=SEEDS),
    log:
        f"{LOGS}/prepare.log",
    benchmark:
        f"{LOGS}/benchmarks/prepare.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=4000,
    params:
        config=settings("prepare"),
        settings=SETTINGS,
        launch=launched("prepare"),
        seeds=",".join(map(str, SEEDS)),
        folder=subpath(output.images, parent=True),
    shell:
        "exec python -m sama.cli {params.launch} prepare --config {params.settings} --seeds {params.seeds} --out {params.folder} &> {log}"


rule phase_prepare:
    input:
        rules.prepare.output,
