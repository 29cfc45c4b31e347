# Finetuning on texts: prepare -> tune -> finetune -> evaluate -> report.
METHODS = CONFIG.finetuning.methods
TUNED = CONFIG.tuning.seeds if CONFIG.tuning.grids else []
DATA = f"{RESULTS}/data"
TEXTS = f"{DATA}/texts.parquet"
# a small BERT has a tokenizer of its own
TOKENIZER = [] if CONFIG.model.name else [f"{DATA}/tokenizer"]
# a method whose weights make the lists for the owner of the texts
WATCHED = [method for method in METHODS if method.startswith("meta_")]
THREADS = CONFIG.runtime.threads


wildcard_constraints:
    seed=r"\d+",
    method="|".join(METHODS),


def kept(path):
    """A model's weights, which may be too large to keep."""
    return path if CONFIG.finetuning.keep_models else temp(path)


rule prepare_texts:
    input:
        src=sources("prepare_texts"),
    output:
        texts=TEXTS,
        dataset=f"{DATA}/dataset.json",
        tokenizer=[directory(path) for path in TOKENIZER],
        manifests=expand(
            f"{DATA}/seed{{seed}}/manifest.{{end}}",
            seed=[*SEEDS, *TUNED],
            end=["parquet", "json"],
        ),
    log:
        f"{LOGS}/prepare_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/prepare_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("prepare_texts"),
        settings=SETTINGS,
        launch=launched("prepare_texts"),
        seeds=",".join(map(str, [*SEEDS, *TUNED])),
        folder=subpath(output.texts, parent=True),
    shell:
        "exec python -m sama.cli {params.launch} prepare-texts --config {params.settings} --seeds {params.seeds} --out {params.folder} &> {log}"


rule phase_prepare:
    input:
        rules.prepare_texts.output,


rule tune:
    input:
        src=sources("tune"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifests=expand(
            f"{DATA}/seed{{seed}}/manifest.{{end}}",
            seed=TUNED,
            end=["parquet", "json"],
        ),
    output:
        f"{RESULTS}/tuning/{{method}}.json",
    log:
        f"{LOGS}/tune/{{method}}.log",
    benchmark:
        f"{LOGS}/benchmarks/tune/{{method}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=lambda w: settings("tune", w.method),
        settings=SETTINGS,
        launch=launched("tune"),
        data=DATA,
        work=f"{WORK}/tune_{{method}}",
    shell:
        "exec python -m sama.cli {params.launch} tune --config {params.settings} --texts {input.texts} --manifests {params.data}"
        " --method {wildcards.method} --out {output} --work {params.work} &> {log}"


def finetuned(method):
    """The files of a finetuning."""
    folder = f"{RESULTS}/models/seed{{seed}}/{method}"
    return {
        "model": kept(f"{folder}/model.safetensors"),
        "metrics": f"{folder}/metrics.jsonl",
        "summary": f"{folder}/summary.json",
    }


rule finetune:
    input:
        src=sources("finetune"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifest=f"{DATA}/seed{{seed}}/manifest.parquet",
        facts=f"{DATA}/seed{{seed}}/manifest.json",
        tuning=rules.tune.output,
    output:
        **finetuned("{method}"),
    log:
        f"{LOGS}/finetune/seed{{seed}}_{{method}}.log",
    benchmark:
        f"{LOGS}/benchmarks/finetune/seed{{seed}}_{{method}}.tsv"
    wildcard_constraints:
        method="|".join([m for m in METHODS if m not in WATCHED] or ["none"]),
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=lambda w: settings("finetune", w.method),
        settings=SETTINGS,
        launch=launched("finetune"),
        folder=subpath(output.summary, parent=True),
        work=f"{WORK}/finetune_seed{{seed}}_{{method}}",
    shell:
        "exec python -m sama.cli {params.launch} finetune --config {params.settings} --texts {input.texts} --manifest {input.manifest}"
        " --tuning {input.tuning} --method {wildcards.method} --out {params.folder} --work {params.work}"
        " --seed {wildcards.seed} &> {log}"


use rule finetune as finetune_meta with:
    output:
        **finetuned("{method}"),
        weights=f"{RESULTS}/models/seed{{seed}}/{{method}}/weights.parquet",
    wildcard_constraints:
        method="|".join(WATCHED or ["none"]),


def cells(seed, files=("model.safetensors", "summary.json", "metrics.jsonl")):
    """Files of the finetunings of a seed, and the weights of those that have some."""
    folder = f"{RESULTS}/models/seed{seed}"
    found = [f"{folder}/{method}/{file}" for method in METHODS for file in files]
    return found + [f"{folder}/{method}/weights.parquet" for method in WATCHED]


rule phase_finetune:
    input:
        [cells(seed) for seed in SEEDS],


rule evaluate_texts:
    input:
        src=sources("evaluate_texts"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifest=f"{DATA}/seed{{seed}}/manifest.parquet",
        facts=f"{DATA}/seed{{seed}}/manifest.json",
        models=lambda w: cells(w.seed),
    output:
        f"{RESULTS}/evaluation/seed{{seed}}.json",
    log:
        f"{LOGS}/evaluate_texts/seed{{seed}}.log",
    benchmark:
        f"{LOGS}/benchmarks/evaluate_texts/seed{{seed}}.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("evaluate_texts"),
        settings=SETTINGS,
        launch=launched("evaluate_texts"),
        models=f"{RESULTS}/models/seed{{seed}}",
    shell:
        "exec python -m sama.cli {params.launch} evaluate-texts --config {params.settings} --texts {input.texts} --manifest {input.manifest}"
        " --models {params.models} --out {output} --seed {wildcards.seed} &> {log}"


rule summarize_texts:
    input:
        src=sources("summarize_texts"),
        evaluations=expand(rules.evaluate_texts.output, seed=SEEDS),
    output:
        summary=f"{RESULTS}/summary.json",
        plots=f"{RESULTS}/plots/measures.csv",
    log:
        f"{LOGS}/summarize_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/summarize_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=1000,
    params:
        config=settings("summarize_texts"),
        settings=SETTINGS,
        evaluations=lambda w, input: os.path.dirname(input.evaluations[0]),
        experiment=CONFIG.experiment,
        seeds=",".join(map(str, SEEDS)),
    shell:
        "exec python -m sama.cli summarize-texts --config {params.settings} --evaluations {params.evaluations} --out {output.summary}"
        " --plots {output.plots} --experiment {params.experiment} --seeds {params.seeds} &> {log}"


rule suspect_texts:
    input:
        src=sources("suspect_texts"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifests=rules.prepare_texts.output.manifests,
        models=expand(
            f"{RESULTS}/models/seed{{seed}}/{{method}}/{{file}}",
            seed=SEEDS,
            method=WATCHED[:1],
            file=["model.safetensors", "weights.parquet"],
        ),
    output:
        weights=f"{RESULTS}/suspects/weights.csv",
        labels=f"{RESULTS}/suspects/suspect_labels.csv",
        summary=f"{RESULTS}/suspects/summary.json",
    log:
        f"{LOGS}/suspect_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/suspect_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    threads: THREADS
    resources:
        mem_mb=4000,
        gpu=GPUS,
    params:
        config=settings("suspect_texts"),
        settings=SETTINGS,
        models=f"{RESULTS}/models",
        folder=subpath(output.summary, parent=True),
        seeds=",".join(map(str, SEEDS)),
    shell:
        "exec python -m sama.cli suspect-texts --config {params.settings} --texts {input.texts} --models {params.models}"
        " --out {params.folder} --seeds {params.seeds} &> {log}"


rule export_text:
    input:
        src=sources("export_text"),
        texts=TEXTS,
        tokenizer=TOKENIZER,
        manifests=rules.prepare_texts.output.manifests,
        summary=rules.summarize_texts.output.summary,
        models=expand(
            f"{RESULTS}/models/seed{{seed}}/{{method}}/model.safetensors",
            seed=SEEDS,
            method=METHODS,
        ),
    output:
        directory(f"{RESULTS}/model"),
    log:
        f"{LOGS}/export_text.log",
    benchmark:
        f"{LOGS}/benchmarks/export_text.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=4000,
    params:
        config=settings("export_text"),
        settings=SETTINGS,
        models=f"{RESULTS}/models",
    shell:
        "exec python -m sama.cli export-text --config {params.settings} --texts {input.texts} --models {params.models}"
        " --summary {input.summary} --out {output} &> {log}"


rule phase_evaluate:
    input:
        expand(rules.evaluate_texts.output, seed=SEEDS),
        rules.summarize_texts.output,
        rules.suspect_texts.output,
        rules.export_text.output,


rule report_texts:
    input:
        src=sources("report_texts"),
        summary=rules.summarize_texts.output.summary,
        data=rules.prepare_texts.output,
        tuning=expand(rules.tune.output, method=METHODS),
        models=[cells(seed, files=["metrics.jsonl"]) for seed in SEEDS],
        suspects=rules.suspect_texts.output,
    output:
        page=f"{RESULTS}/report/index.html",
        figures=directory(f"{RESULTS}/report/figures"),
    log:
        f"{LOGS}/report_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/report_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("report_texts"),
        settings=SETTINGS,
        results=subpath(input.summary, parent=True),
        folder=subpath(output.page, parent=True),
    shell:
        "exec python -m sama.cli report-texts --config {params.settings} --results {params.results} --out {params.folder} &> {log}"


rule phase_report:
    input:
        rules.report_texts.output,


# The MLflow dashboard: a mirror of the results, never one of them.
rule track_texts:
    input:
        src=sources("track_texts"),
        summary=rules.summarize_texts.output.summary,
        data=rules.prepare_texts.output,
        tuning=expand(rules.tune.output, method=METHODS),
        models=[cells(seed, files=["metrics.jsonl", "summary.json"]) for seed in SEEDS],
        figures=rules.report_texts.output.figures,
    output:
        f".mlflow/{CONFIG.experiment}.json",
    log:
        f"{LOGS}/track_texts.log",
    benchmark:
        f"{LOGS}/benchmarks/track_texts.tsv"
    conda:
        "../../envs/sama.yaml"
    resources:
        mem_mb=2000,
    params:
        config=settings("track_texts"),
        settings=SETTINGS,
        results=subpath(input.summary, parent=True),
        database="mlflow.db",
        server=TRACKING,
        artifacts="mlartifacts",
    shell:
        "exec python -m sama.cli track-texts --config {params.settings} --results {params.results} --database {params.database}"
        " --artifacts {params.artifacts} --out {output} &> {log}"


# what a run is to make
TARGETS = [
    rules.phase_prepare.input,
    rules.phase_finetune.input,
    rules.phase_evaluate.input,
    rules.phase_report.input,
    rules.track_texts.output,
]
