# Ordinary training with one recipe and one number of steps: on the kept examples, and on all of them.


rule retrain:
    input:
        src=sources("retrain"),
        images=rules.prepare.output.images,
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        facts=f"{RESULTS}/data/seed{{seed}}/manifest.json",
        kept=rules.select.output.kept,
    output:
        model=f"{RESULTS}/models/seed{{seed}}/{{method}}_{{ratio}}/model.safetensors",
        metrics=f"{RESULTS}/models/seed{{seed}}/{{method}}_{{ratio}}/metrics.jsonl",
        summary=f"{RESULTS}/models/seed{{seed}}/{{method}}_{{ratio}}/summary.json",
    log:
        f"{LOGS}/retrain/seed{{seed}}_{{method}}_{{ratio}}.log",
    benchmark:
        f"{LOGS}/benchmarks/retrain/seed{{seed}}_{{method}}_{{ratio}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("retrain"),
        settings=SETTINGS,
        launch=launched("retrain"),
        examples=lambda w, input: f"--kept {input.kept} --cell {w.method}_{w.ratio}",
        folder=subpath(output.model, parent=True),
        work=f"{WORK}/seed{{seed}}_{{method}}_{{ratio}}",
    shell:
        "exec python -m sama.cli {params.launch} retrain --config {params.settings} --images {input.images} --manifest {input.manifest} {params.examples}"
        " --out {params.folder} --work {params.work} --seed {wildcards.seed} &> {log}"


use rule retrain as retrain_whole with:
    input:
        src=sources("retrain"),
        images=rules.prepare.output.images,
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        facts=f"{RESULTS}/data/seed{{seed}}/manifest.json",
    output:
        model=f"{RESULTS}/models/seed{{seed}}/{{whole}}/model.safetensors",
        metrics=f"{RESULTS}/models/seed{{seed}}/{{whole}}/metrics.jsonl",
        summary=f"{RESULTS}/models/seed{{seed}}/{{whole}}/summary.json",
    log:
        f"{LOGS}/retrain/seed{{seed}}_{{whole}}.log",
    benchmark:
        f"{LOGS}/benchmarks/retrain/seed{{seed}}_{{whole}}.tsv"
    params:
        config=settings("retrain"),
        settings=SETTINGS,
        launch=launched("retrain"),
        examples=lambda w: f"--cell {w.whole} --labels {'clean' if w.whole == 'clean' else 'observed'}",
        folder=subpath(output.model, parent=True),
        work=f"{WORK}/seed{{seed}}_{{whole}}",


rule phase_retrain:
    input:
        expand(rules.retrain.output, seed=SEEDS, method=METHODS, ratio=RATIOS),
        expand(rules.retrain_whole.output, seed=SEEDS, whole=WHOLE),
