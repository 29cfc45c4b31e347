# SAMA meta training of base model and meta weight network: the weight of every training example.


rule meta_train:
    input:
        src=sources("meta_train"),
        images=rules.prepare.output.images,
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        facts=f"{RESULTS}/data/seed{{seed}}/manifest.json",
    output:
        weights=f"{RESULTS}/meta/seed{{seed}}/weights.parquet",
        model=f"{RESULTS}/meta/seed{{seed}}/model.safetensors",
        network=f"{RESULTS}/meta/seed{{seed}}/meta_network.safetensors",
        metrics=f"{RESULTS}/meta/seed{{seed}}/metrics.jsonl",
        summary=f"{RESULTS}/meta/seed{{seed}}/summary.json",
    log:
        f"{LOGS}/meta_train/seed{{seed}}.log",
    benchmark:
        f"{LOGS}/benchmarks/meta_train/seed{{seed}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("meta_train"),
        settings=SETTINGS,
        launch=launched("meta_train"),
        folder=subpath(output.weights, parent=True),
        work=f"{WORK}/meta_seed{{seed}}",
        features="",
    shell:
        "exec python -m sama.cli {params.launch} meta-train --config {params.settings} --images {input.images} --manifest {input.manifest}"
        " --out {params.folder} --work {params.work} --seed {wildcards.seed} {params.features} &> {log}"


use rule meta_train as meta_train_loss with:
    output:
        weights=f"{RESULTS}/meta/seed{{seed}}/loss_only/weights.parquet",
        model=f"{RESULTS}/meta/seed{{seed}}/loss_only/model.safetensors",
        network=f"{RESULTS}/meta/seed{{seed}}/loss_only/meta_network.safetensors",
        metrics=f"{RESULTS}/meta/seed{{seed}}/loss_only/metrics.jsonl",
        summary=f"{RESULTS}/meta/seed{{seed}}/loss_only/summary.json",
    log:
        f"{LOGS}/meta_train/seed{{seed}}_loss_only.log",
    benchmark:
        f"{LOGS}/benchmarks/meta_train/seed{{seed}}_loss_only.tsv"
    params:
        config=settings("meta_train"),
        settings=SETTINGS,
        launch=launched("meta_train"),
        folder=subpath(output.weights, parent=True),
        work=f"{WORK}/meta_seed{{seed}}_loss_only",
        features="--features loss",
