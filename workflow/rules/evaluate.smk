# The test split, read once a seed; then the machine-readable outcome over all seeds.


rule evaluate:
    input:
        src=sources("evaluate"),
        images=rules.prepare.output.images,
        manifest=f"{RESULTS}/data/seed{{seed}}/manifest.parquet",
        facts=f"{RESULTS}/data/seed{{seed}}/manifest.json",
        meta=rules.meta_train.output.model,
        models=expand(
            f"{RESULTS}/models/seed{{{{seed}}}}/{{cell}}/{{file}}",
            cell=CELLS,
            file=["model.safetensors", "summary.json"],
        ),
        scores=expand(
            f"{RESULTS}/scores/seed{{{{seed}}}}/{{method}}.{{file}}",
            method=METHODS,
            file=["parquet", "json"],
        ),
    output:
        f"{RESULTS}/evaluation/seed{{seed}}.json",
    log:
        f"{LOGS}/evaluate/seed{{seed}}.log",
    benchmark:
        f"{LOGS}/benchmarks/evaluate/seed{{seed}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("evaluate"),
        settings=SETTINGS,
        launch=launched("evaluate"),
        models=lambda w, input: os.path.dirname(os.path.dirname(input.models[0])),
        meta=subpath(input.meta, parent=True),
        scores=lambda w, input: os.path.dirname(input.scores[0]),
    shell:
        "exec python -m sama.cli {params.launch} evaluate --config {params.settings} --images {input.images} --manifest {input.manifest}"
        " --models {params.models} --meta {params.meta} --scores-dir {params.scores} --out {output}"
        " --seed {wildcards.seed} &> {log}"


rule summarize:
    input:
        src=sources("summarize"),
        evaluations=expand(rules.evaluate.output, seed=SEEDS),
    output:
        summary=f"{RESULTS}/summary.json",
        plots=f"{RESULTS}/plots/accuracy.csv",
    log:
        f"{LOGS}/summarize.log",
    benchmark:
        f"{LOGS}/benchmarks/summarize.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=1000,
    params:
        config=settings("summarize"),
        settings=SETTINGS,
        evaluations=lambda w, input: os.path.dirname(input.evaluations[0]),
        experiment=CONFIG.experiment,
        seeds=",".join(map(str, SEEDS)),
    shell:
        "exec python -m sama.cli summarize --config {params.settings} --evaluations {params.evaluations} --out {output.summary}"
        " --plots {output.plots} --experiment {params.experiment} --seeds {params.seeds} &> {log}"


rule phase_evaluate:
    input:
        expand(rules.evaluate.output, seed=SEEDS),
        rules.summarize.output,
